"""The training loop of every stage. It knows steps, checkpoints and measurements, and nothing of models or data.

In: a `TrainModule`. Out: the history of measurements, and the module trained to `total_steps`. The work folder::

    work/metrics.jsonl                 one record an interval, consistent with the newest checkpoint after a resume
    work/checkpoints/step-00000200/    the last two, whole or absent; `loop.json` beside what the module saved
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_directory, atomic_write_json, read_json
from fulmen_trainer.display import Display, open_display
from fulmen_trainer.interruption import StopRequest
from fulmen_trainer.trackers import MetricsFile, Record, Tracker

if TYPE_CHECKING:
    from fulmen_core.registry import Registry

#: How many checkpoints stay: the newest, and one to fall back on should a disk have damaged it.
KEPT_CHECKPOINTS = 2


class TrainModule(Protocol):
    """What a stage is to the loop."""

    def train_step(self, step: int) -> dict[str, float]:
        """Forward, backward and optimizer step number `step`, from 0: a function of the state and of `step` only.

        Returns measurements; ``"loss"`` must be among them, ``"tokens"`` (of this step) should. The loop logs the mean
        over the interval of whatever is reported, except ``"tokens"``, which it sums.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write the whole training state into an existing, empty directory."""
        ...

    def load(self, directory: Path) -> None:
        """Read it back, so that training goes on bit for bit. Raises `CorruptArtefact`."""
        ...


@dataclass(slots=True)
class _Interval:
    """Sums since the last record. Saved with a checkpoint, so that a resumed run logs the same means."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, metrics: dict[str, float], seconds: float) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.seconds += seconds

    def record(self) -> Record:
        record = {name: total / self.counts[name] for name, total in self.sums.items() if name != "tokens"}
        if tokens := self.sums.get("tokens"):
            record["tokens"] = tokens
            record["tokens_per_second"] = tokens / max(self.seconds, 1e-9)
        record["seconds"] = self.seconds
        return record


def checkpoints(work: Path) -> list[Path]:
    """The whole checkpoints below `work`, oldest first."""
    return sorted(path for path in (work / "checkpoints").glob("step-*") if (path / "loop.json").is_file())


def save_checkpoint(module: TrainModule, work: Path, step: int, interval: _Interval | None = None) -> Path:
    """Write the checkpoint of `step` (steps done) whole, remove all but the last two, and return its path.

    Called with a loaded module before `run_loop`, it makes the loop start at `step`.
    """
    interval = interval if interval is not None else _Interval()
    path = work / "checkpoints" / f"step-{step:08d}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(path) as partial:
        module.save(partial)
        atomic_write_json(partial / "loop.json", {"step": step, "interval": asdict(interval)})
    for old in checkpoints(work)[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old)
    return path


def _resume(module: TrainModule, work: Path, display: Display) -> tuple[int, _Interval]:
    """Load the newest checkpoint that is sound; the step to go on with, and the interval it was taken in."""
    for leftover in (work / "checkpoints").glob(".step-*"):  # of a process that was killed while writing
        shutil.rmtree(leftover, ignore_errors=True)
    found = checkpoints(work)
    fault: CorruptArtefact | None = None
    for path in reversed(found):
        try:
            state = read_json(path / "loop.json", "checkpoint")
            module.load(path)
        except CorruptArtefact as error:
            display.note(f"checkpoint {path.name} is unusable ({error}); falling back to the one before it")
            fault = error
            continue
        return int(state["step"]), _Interval(**state["interval"])
    if fault is not None:
        raise CorruptArtefact(
            "no checkpoint can be read", where=str(work / "checkpoints"), remedy="remove the folder to start again"
        ) from fault
    return 0, _Interval()


def _check(metrics: dict[str, float], stage: str, step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{name} became {value} at step {step + 1}",
                where=f"stage {stage!r}",
                remedy="lower the learning rate or the gradient clip; the last checkpoint is untouched",
            )


def run_loop(
    module: TrainModule,
    *,
    stage: str,
    total_steps: int,
    work: Path,
    checkpoint_every: int,
    log_every: int,
    registry: Registry,
    display: Display | None = None,
    trackers: Sequence[str] = (),
) -> list[Record]:
    """Train `module` to `total_steps`, going on from the newest checkpoint below `work` if there is one.

    Args:
        module: what one step does.
        stage: name for hooks, messages and the display.
        total_steps: optimizer steps in all, those before a resume included.
        work: folder of this stage; survives a kill.
        checkpoint_every: steps between checkpoints; 0 checkpoints only at the end and on a signal.
        log_every: steps between records, displays and `fulmen_step_end` announcements.
        registry: announces the events and opens `trackers`.
        display: where progress is shown; None picks a live display on a terminal, and lines on stderr elsewhere.
        trackers: names of further trackers; `metrics.jsonl` is always written.

    Returns:
        All records, those before a resume included, each with ``"step"`` (steps done, from 1), means over its
        interval, and ``"tokens"``, ``"tokens_per_second"``, ``"seconds"`` of the interval.

    Raises:
        UserError: a measurement is not finite (the newest checkpoint is from before it), or the newest checkpoint
            lies past `total_steps`.
        CorruptArtefact: there are checkpoints and none can be read.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint of the finished step is on disk.
    """
    work.mkdir(parents=True, exist_ok=True)
    display = display if display is not None else open_display()
    done, interval = _resume(module, work, display)
    if done > total_steps:
        raise UserError(
            f"the checkpoint is at step {done}, past the {total_steps} steps asked for",
            where=str(work),
            remedy="raise the number of steps or remove the folder",
        )
    metrics_file = MetricsFile(work / "metrics.jsonl", done)
    opened: list[Tracker] = [registry.tracker(name)(work, stage) for name in trackers]
    registry.announce("fulmen_stage_start", run=work, stage=stage)
    display.start(stage, total_steps, done)

    def checkpoint(step: int) -> None:
        path = save_checkpoint(module, work, step, interval)
        registry.announce("fulmen_checkpoint_saved", run=work, stage=stage, path=path)

    try:
        with StopRequest() as stop:
            for step in range(done, total_steps):
                began = time.perf_counter()
                metrics = module.train_step(step)
                _check(metrics, stage, step)
                interval.add(metrics, time.perf_counter() - began)
                done = step + 1
                if done % log_every == 0 or done == total_steps:
                    record = interval.record()
                    interval = _Interval()
                    for tracker in (metrics_file, *opened):
                        tracker.log(done, record)
                    registry.announce("fulmen_step_end", run=work, stage=stage, step=done, metrics=record)
                    display.show(done, record)
                ended = done == total_steps
                if ended or stop.requested or (checkpoint_every and done % checkpoint_every == 0):
                    checkpoint(done)
                if stop.requested and not ended:
                    display.note(f"stopped after step {done} of {total_steps}; run the same command again to go on")
                    raise KeyboardInterrupt
    finally:
        for tracker in (metrics_file, *opened):
            tracker.close()
        display.close()
    return metrics_file.history
