"""Runs a suite in processes of its own, and goes on after a claim that killed one or did not end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fulmen_core.errors import PluginError
from fulmen_testing.scorecard import Verdict
from fulmen_testing.suite_process import Task

#: What would change how pytest runs in the child: its settings are the kit's.
_NOT_OURS = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def run_suite(task: Task, tell: Callable[[Verdict], None], patience: float) -> list[Verdict]:
    """Try every claim and return the verdicts; `tell` hears of each as it falls.

    Args:
        patience: seconds that one claim may take.

    Raises:
        PluginError: no claim could be tried.
    """
    verdicts: list[Verdict] = []

    def fall(verdict: Verdict) -> None:
        verdicts.append(verdict)
        tell(verdict)

    while not _run_process(replace(task, done=[one.claim for one in verdicts]), fall, patience):
        pass
    return verdicts


def _run_process(task: Task, tell: Callable[[Verdict], None], patience: float) -> bool:
    """Run one process. Returns: whether all claims were tried; else one killed it, which is told as failed."""
    # -P: the current folder is no more importable than it is for the installed command.
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fulmen_testing.suite_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(task.as_json())
        process.stdin.close()
        errors = _Reader(process.stderr)
        begun: dict[str, Any] = {}
        collected: list[str] | None = None
        ended: set[str] = set()
        for event in _events(process, patience):
            if "collected" in event:
                collected = event["collected"]
            elif "begin" in event:
                begun = event
            elif "end" in event and event["end"] not in ended:  # one whose tear-down failed too has been told
                ended.add(event["end"])
                tell(_verdict(event, begun))
                begun = {}
            elif "fault" in event:
                raise PluginError(f"the claims cannot be run: {event['fault']}")
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    if collected is None:
        raise PluginError(f"the claims about the {task.kind} {task.name} cannot be run: {errors.text() or code}")
    left = [claim for claim in collected if claim not in ended]
    if begun or (left and not ended):
        tell(_death(begun or {"begin": left[0]}, code, patience, errors.text()))
    elif code and not left:
        after = {"begin": "the_end", "title": "The process ends well when all claims were tried"}
        tell(_death(after, code, patience, errors.text()))
    return not left


def _events(process: subprocess.Popen[str], patience: float) -> Iterator[dict[str, Any]]:
    """Yield what the process tells; kill it if it is silent for too long."""
    lines = _Reader(process.stdout).lines
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            process.kill()
            return
        if line is None:
            return
        yield json.loads(line)


def _verdict(event: dict[str, Any], begun: dict[str, Any]) -> Verdict:
    return Verdict(
        event["end"],
        begun.get("title") or event["end"],
        event["outcome"],
        event["seconds"],
        event["reason"],
        event["measured"],
        event["detail"],
    )


def _death(begun: dict[str, Any], code: int, patience: float, errors: str) -> Verdict:
    if code == -signal.SIGKILL:
        reason = f"it did not end within {patience:.0f} s, or was killed for its memory"
    elif code < 0:
        reason = f"it killed its process with {signal.Signals(-code).name}"
    else:
        reason = f"it ended its process with exit code {code}"
    return Verdict(begun["begin"], begun.get("title") or begun["begin"], "failed", reason=reason, detail=errors[-4000:])


class _Reader:
    """Reads a stream to its end in a thread, so that a full pipe stops nobody."""

    def __init__(self, stream: Any) -> None:
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self._seen.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def text(self) -> str:
        """Everything that was read, once the stream has ended."""
        self._thread.join(timeout=5)
        return "".join(self._seen).strip()
