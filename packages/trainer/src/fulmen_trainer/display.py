"""Progress of a stage on stderr: a live panel on a terminal, one line an interval elsewhere.

In: records of the training loop. Out: text on stderr. May import: rich and the standard library.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

#: Heights of a bar, for pictures of the expert load.
BARS = "▁▂▃▄▅▆▇█"

#: Measurements that have their own place, or are too many for a line.
_APART = ("tokens", "seconds")
_LOAD_PREFIX = "expert_load/"


class Display(Protocol):
    """Shows one stage. `start` and `close` are called once each, `show` at every log interval."""

    def start(self, stage: str, total_steps: int, first_step: int) -> None:
        """A stage begins, or goes on after `first_step` steps."""
        ...

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """`step` steps are done; `metrics` are means over the last interval."""
        ...

    def note(self, text: str) -> None:
        """Say something once, e.g. what was degraded."""
        ...

    def close(self) -> None:
        """The stage ended or failed. Idempotent."""
        ...


def load_bar(loads: Sequence[float]) -> str:
    """One character an entry, its height relative to the largest: the picture of one layer's expert load."""
    top = max(loads, default=0.0)
    if top <= 0:
        return ""
    return "".join(BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in loads)


def _format(name: str, value: float) -> str:
    if name == "lr":
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _split(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """(what belongs on a line, the expert loads by layer)."""
    line: dict[str, float] = {}
    loads: dict[str, list[float]] = {}
    for name, value in metrics.items():
        if name.startswith(_LOAD_PREFIX):
            loads.setdefault(name.split("/")[1], []).append(value)
        elif name not in _APART:
            line[name] = value
    return line, loads


class LineDisplay:
    """One line an interval, for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._stage, self._total, self._first, self._began = "", 0, 0, 0.0

    def _print(self, text: str) -> None:
        self._stream.write(f"{self._stage}: {text}\n" if self._stage else f"{text}\n")
        self._stream.flush()

    def start(self, stage: str, total_steps: int, first_step: int) -> None:
        """Say that the stage begins or resumes."""
        self._stage, self._total, self._first, self._began = stage, total_steps, first_step, time.monotonic()
        self._print(f"resuming at step {first_step} of {total_steps}" if first_step else f"{total_steps} steps")

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line: step, measurements, time left."""
        values, _ = _split(metrics)
        elapsed = time.monotonic() - self._began
        left = elapsed / max(1, step - self._first) * (self._total - step)
        body = " ".join(f"{name} {_format(name, value)}" for name, value in values.items())
        self._print(f"step {step}/{self._total} {body} eta {_duration(left)}")

    def note(self, text: str) -> None:
        """One line."""
        self._print(text)

    def close(self) -> None:
        """Nothing is held."""


class LiveDisplay:
    """A panel that redraws in place: progress and time left, the measurements, and a bar picture of the expert load."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
        )

    def start(self, stage: str, total_steps: int, first_step: int) -> None:
        """Open the panel."""
        self._task = self._progress.add_task(stage, total=total_steps, completed=first_step)
        self._live = Live(self._progress, console=self._console, refresh_per_second=4, transient=False)
        self._live.start()

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Redraw with new measurements."""
        values, loads = _split(metrics)
        self._progress.update(self._task, completed=step)
        table = Table.grid(padding=(0, 2))
        for name, value in values.items():
            table.add_row(Text(name, style="dim"), Text(_format(name, value), style="cyan"))
        for layer, load in loads.items():
            table.add_row(Text(f"expert load, layer {layer}", style="dim"), Text(load_bar(load), style="green"))
        if self._live is not None:
            self._live.update(Group(self._progress, table))

    def note(self, text: str) -> None:
        """A line above the panel."""
        self._console.print(text, style="yellow", highlight=False)

    def close(self) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def open_display(stream: IO[str] | None = None) -> Display:
    """A live display if `stream` (stderr by default) is a terminal, lines otherwise."""
    console = Console(file=stream) if stream is not None else Console(stderr=True)
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LineDisplay(stream)
