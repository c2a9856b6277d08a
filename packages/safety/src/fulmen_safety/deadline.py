"""Calls with a time limit, so that a detector that hangs cannot hang an answer.

Each call runs in a worker thread that is kept for the next one. A late call's thread cannot be killed in Python; it is
abandoned, and its slot is filled by a new one. When too many are abandoned, calls fail at once: the circuit is open.
A detector that never gives the interpreter lock back (a runaway regular expression) cannot be timed out from within the
process; the shipped patterns are linear for that reason.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

#: Calls of one detector that may be late and still running before further ones are refused.
MOST_ABANDONED = 8


class Late(Exception):
    """A call did not end within its time limit, or was refused because too many before it did not."""


class Deadline(Generic[Result]):
    """Runs calls of one function under a time limit. Safe to use from many threads, each of which waits for its own
    call."""

    def __init__(self, function: Callable[..., Result]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._abandoned: list[_Worker] = []
        self._process = os.getpid()

    def __del__(self) -> None:
        for worker in self._idle:
            worker.jobs.put(None)

    def call(self, seconds: float, *arguments: Any) -> Result:
        """Return ``function(*arguments)``.

        Raises:
            Late: it took longer than `seconds`, or the circuit is open.
            Exception: whatever the function raised.
        """
        worker = self._take()
        worker.jobs.put((self._function, arguments))
        try:
            result, error = worker.results.get(timeout=seconds)
        except queue.Empty:
            with self._lock:
                self._abandoned.append(worker)
            worker.jobs.put(None)  # should it ever come back, it ends
            raise Late(f"no result within {seconds * 1000:.0f} ms") from None
        with self._lock:
            self._idle.append(worker)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _take(self) -> _Worker:
        with self._lock:
            if self._process != os.getpid():  # threads do not survive a fork
                self._idle, self._abandoned, self._process = [], [], os.getpid()
            if self._idle:
                return self._idle.pop()
            self._abandoned = [worker for worker in self._abandoned if worker.thread.is_alive()]
            if len(self._abandoned) >= MOST_ABANDONED:
                raise Late(f"{len(self._abandoned)} earlier calls have not come back")
        return _Worker()


class _Worker:
    """A daemon thread that runs one job at a time."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="raise-detector", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while job := self.jobs.get():
            function, arguments = job
            try:
                outcome: tuple[Any, Exception | None] = (function(*arguments), None)
            except Exception as error:
                outcome = (None, error)
            self.results.put(outcome)
