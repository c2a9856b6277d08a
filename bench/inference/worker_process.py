"""A worker: an engine in a process and a Python environment of its own, pinned to given cores."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from inference.pinned_process import PinnedProcess

_WORKERS = Path(__file__).parent.parent / "workers"


class WorkerError(Exception):
    """The worker said what went wrong, or ended; one sentence."""


class Worker:
    """Starts ``workers/NAME_cpu.py`` under `python`; a context manager that leaves no process behind.

    Libraries print into `log`.
    """

    def __init__(self, name: str, python: Path, cores: Collection[int], log: Path) -> None:
        self.log = log
        self._process = PinnedProcess([str(python), str(_WORKERS / f"{name}_cpu.py")], cores, log, answers=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Mapping[str, Any], patience: float) -> dict[str, Any]:
        """Put a question and wait up to `patience` seconds for the answer.

        Raises:
            WorkerError: the answer is an error, none came in time, or the worker ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._ending()) from error
        line = b""
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerError(f"no answer within {patience:.0f} s (log: {self.log})")
                part = os.read(stdout.fileno(), 1 << 20)
                if not part:
                    raise WorkerError(self._ending())
                line += part
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{answer['error']} (log: {self.log})")
        return answer

    def _ending(self) -> str:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the worker ended with {how} (log: {self.log})"

    def close(self) -> None:
        """End the worker and whatever it started. Idempotent."""
        self._process.end()
