"""Calls with a time limit, so that a detector that hangs cannot hang an answer.

Calls are made in a worker thread that is kept for the next ones. It makes several in turn, each under its own limit,
because on a streamed answer handing over and waiting takes longer than most detectors do. A late call's thread cannot
be killed in Python; it is abandoned, its slot is filled by a new one, and that goes on with the call after it. When too
many calls of one function are abandoned, further ones fail at once: the circuit is open.
A detector that never gives the interpreter lock back (a runaway regular expression) cannot be timed out from within the
process; the shipped patterns are linear for that reason.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

Result = TypeVar("Result")

#: Calls of one detector that may be late and still running before further ones are refused.
MOST_ABANDONED = 8


class Late(Exception):
    """A call did not end within its time limit, or was refused because too many before it did not."""


class Call(NamedTuple):
    """A call to be made: of what, in how many seconds, with what."""

    deadline: Deadline[Any]
    seconds: float
    arguments: tuple[Any, ...]


class Outcome(NamedTuple):
    """What a call returned, or why it did not."""

    result: Any
    error: Exception | None
    seconds: float


class Deadline(Generic[Result]):
    """Runs calls of one function under a time limit. Safe to use from many threads, each of which waits for its own
    call."""

    def __init__(self, function: Callable[..., Result]) -> None:
        self.function = function
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
        [outcome] = in_turn([Call(self, seconds, arguments)])
        if outcome.error is not None:
            raise outcome.error
        return outcome.result  # type: ignore[no-any-return]

    def check(self) -> None:
        """Raise `Late` if the circuit is open."""
        if not self._abandoned and self._process == os.getpid():
            return  # as nearly always, and for each detector and token
        with self._lock:
            if self._process != os.getpid():  # threads do not survive a fork
                self._idle, self._abandoned, self._process = [], [], os.getpid()
            if len(self._abandoned) >= MOST_ABANDONED:
                self._abandoned = [worker for worker in self._abandoned if worker.thread.is_alive()]
            if len(self._abandoned) >= MOST_ABANDONED:
                raise Late(f"{len(self._abandoned)} earlier calls have not come back")

    def worker(self) -> _Worker:
        """Take a worker that has nothing to do."""
        with self._lock:
            return self._idle.pop() if self._idle else _Worker()

    def put_back(self, worker: _Worker) -> None:
        """The worker has nothing to do again."""
        with self._lock:
            self._idle.append(worker)

    def abandon(self, worker: _Worker) -> None:
        """A call of this function does not come back from the worker."""
        with self._lock:
            self._abandoned.append(worker)
        worker.jobs.put(None)  # should it ever come back, it ends


def in_turn(calls: Sequence[Call]) -> list[Outcome]:
    """Make the calls one after another, each under its own limit; none of them costs another its result."""
    outcomes: list[Outcome] = []
    closed = []
    for call in calls:
        try:
            call.deadline.check()
            closed.append(call)
        except Late as error:
            outcomes.append(Outcome(None, error, 0.0))
    if not outcomes:
        return _made(closed)
    made, refused = iter(_made(closed)), iter(outcomes)
    allowed = set(map(id, closed))
    return [next(made) if id(call) in allowed else next(refused) for call in calls]


def _made(calls: Sequence[Call]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while len(outcomes) < len(calls):
        first = calls[len(outcomes)].deadline
        worker = first.worker()
        turn = _Turn(calls[len(outcomes) :])
        worker.jobs.put(turn)
        in_time = turn.wait()
        outcomes += turn.outcomes
        if in_time:
            first.put_back(worker)
            continue
        late = calls[len(outcomes)]
        late.deadline.abandon(worker)
        error = Late(f"no result within {late.seconds * 1000:.0f} ms")
        outcomes.append(Outcome(None, error, late.seconds))
    return outcomes


class _Turn:
    """Calls that a worker makes one after another, while somebody waits for the last of them.

    The one that runs is the one that has no outcome yet; `_began` is since when.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.outcomes: list[Outcome] = []
        self._calls = calls
        self._began = time.perf_counter()
        self._lock = threading.Lock()  # of the outcomes and of what follows
        self._left = False
        self._ended = threading.Lock()
        self._ended.acquire()

    def work(self) -> None:
        """Make the calls, unless whoever waits has left."""
        for call in self._calls:
            result, error = None, None
            try:
                result = call.deadline.function(*call.arguments)
            except Exception as raised:
                error = raised
            now = time.perf_counter()
            with self._lock:
                if self._left:
                    return
                self.outcomes.append(Outcome(result, error, now - self._began))
                self._began = now
        self._ended.release()

    def wait(self) -> bool:
        """Wait until the calls have ended, or one of them is late: then leave, and return False."""
        while True:
            with self._lock:
                at = len(self.outcomes)
                if at == len(self._calls):
                    return True
                left = self._began + self._calls[at].seconds - time.perf_counter()
                if left <= 0:
                    self._left = True
                    return False
            # One that comes later is late at the soonest when its own time has gone by from now.
            if self._ended.acquire(timeout=min([left, *(call.seconds for call in self._calls[at + 1 :])])):
                return True


class _Worker:
    """A daemon thread that runs one turn at a time."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Turn | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="raise-detector", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while turn := self.jobs.get():
            turn.work()
            del turn  # it knows the owner, which must be able to end
