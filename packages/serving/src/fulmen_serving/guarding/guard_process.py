"""A guard in a process of its own, which is started again when it dies or hangs. Whatever it cannot judge fails closed.

A call that ends the process is tried once more in the next one, then it fails: by the rules of whoever called, which
end that answer and no other. An answer that was being read is fed again from its start to the process that reads on,
and what had been delivered of it is not delivered twice.
"""

from __future__ import annotations

import itertools
import logging
import select
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

from fulmen_core.guard import DocumentVerdict, InputVerdict, OutputChunk, OutputStream
from fulmen_core.registry import Discovery
from fulmen_serving.guarding.messages import Call, Feed, FeedTogether, GuardPlan, Lost, Open, Reply
from fulmen_serving.guarding.together import fed
from fulmen_serving.processes.child import end_child, start_child
from fulmen_serving.processes.restart_policy import RestartPolicy

logger = logging.getLogger(__name__)

#: Seconds without a reply after which the process counts as hung; a policy's own deadlines are shorter.
PATIENCE = 30.0
_JUDGING, _READING = 0, 1  # the channels
Messages = Sequence[Mapping[str, str]]
_T = TypeVar("_T")


class GuardLost(Exception):
    """The guard's process died or hung over what it was asked."""


class _Child:
    """One process and its channels."""

    def __init__(self, process: subprocess.Popen[bytes], channels: Sequence[Connection]) -> None:
        self.process, self.channels = process, channels
        self._polls = [select.poll() for _ in channels]
        for poll, channel in zip(self._polls, channels, strict=True):
            poll.register(channel.fileno(), select.POLLIN)

    def ask(self, channel: int, request: object, patience: float | None) -> Any:
        """Return the value of the reply or raise its error; `EOFError`: there is none, `TimeoutError`: it is late."""
        connection = self.channels[channel]
        try:
            connection.send(request)
            if not self._polls[channel].poll(None if patience is None else 1000 * patience):
                raise TimeoutError(f"it gave no answer within {patience:g} s")
            reply: Reply = connection.recv()
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise EOFError from None
        if reply.error is not None:
            raise reply.error
        return reply.value


class GuardProcess:
    """A `Guard`. Thread-safe; calls of one kind wait for one another, as they would for the interpreter's lock.

    Args:
        policy: the guard's policy file; None is its own default.
        plugins: how the registry was discovered.
        restarts: when to start it again; fresh. Without delays, as whoever asks waits.
        patience: seconds for one reply.
    """

    def __init__(
        self,
        policy: Path | None,
        plugins: Discovery,
        *,
        restarts: RestartPolicy | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._plan = GuardPlan(policy, plugins, logging.getLogger().getEffectiveLevel())
        self._restarts, self._patience = restarts or RestartPolicy(delays=(0.0,)), patience
        self._lock = threading.Lock()  # of what follows
        self._child: _Child | None = None
        self._fault = ""
        self._closed = False
        self._channels = (threading.Lock(), threading.Lock())
        self._keeper = ThreadPoolExecutor(1, "fulmen-guard")  # a child dies with the thread that started it
        self._numbers = itertools.count()
        self._forgotten: list[int] = []
        self._untold: list[str] = []  # deaths that no process has recorded yet
        self.deaths = 0
        self.name = self.policy_version = ""

    def start(self) -> None:
        """Start the process and wait until the guard is loaded.

        Raises:
            UserError: it is not installed, cannot be used, or the policy is at fault.
            GuardLost: the process died.
        """
        self._current()

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one now."""
        child = self._child
        return None if child is None else child.process.pid

    def judge_input(self, messages: Messages) -> InputVerdict:
        """RAISE-3."""
        verdict: InputVerdict = self._call("judge_input", list(messages))
        return verdict

    def judge_document(self, text: str) -> DocumentVerdict:
        """RAISE-1."""
        verdict: DocumentVerdict = self._call("judge_document", text)
        return verdict

    def reward_penalty(self, prompt: str, answer: str) -> float:
        """RAISE-2."""
        penalty: float = self._call("reward_penalty", prompt, answer)
        return penalty

    def crosswalk(self, scheme: str) -> Mapping[str, Sequence[str]]:
        """How another scheme files the guard's categories."""
        table: Mapping[str, Sequence[str]] = self._call("crosswalk", scheme)
        return table

    def category_scores(self, text: str) -> Mapping[str, float]:
        """How suspect a text is, category by category; empty if the guard does not say (`Explains`)."""
        scores: Mapping[str, float] = self._call("category_scores", text)
        return scores

    def explain(self, text: str) -> Mapping[str, Any]:
        """What the detectors say of a text; empty if the guard does not say (`Explains`)."""
        said: Mapping[str, Any] = self._call("explain", text)
        return said

    def open_output(self, messages: Messages) -> RemoteStream:
        """RAISE-4."""
        stream = RemoteStream(self, next(self._numbers), list(messages))
        weakref.finalize(stream, self._forgotten.append, stream.number)
        return stream

    def feed_together(self, pieces: Sequence[tuple[OutputStream, str]]) -> list[OutputChunk | Exception]:
        """One message for several answers. If the process is lost over it, each is fed alone: one is at fault."""
        streams = [cast("RemoteStream", stream) for stream, _ in pieces]
        opened: list[RemoteStream] = []

        def opens(stream: RemoteStream) -> Callable[[_Child], Open | None]:
            def make(child: _Child) -> Open | None:
                request = stream.opening(child)
                if request is not None:
                    opened.append(stream)
                return request

            return make

        def feeds(_: _Child) -> FeedTogether:
            numbered = zip(streams, pieces, strict=True)
            return FeedTogether(tuple((stream.number, text) for stream, (_, text) in numbered), self.forgotten())

        try:
            *firsts, given = self.ask(_READING, *map(opens, streams), feeds)
        except Exception:
            for stream in opened:
                stream.reopen()
            return [fed(stream, text) for stream, text in pieces]
        first_of = dict(zip((stream.number for stream in opened), firsts, strict=True))
        return [
            fields if isinstance(fields, Exception) else stream.fed(text, first_of.get(stream.number), fields)
            for stream, (_, text), fields in zip(streams, pieces, given, strict=True)
        ]

    def close(self) -> None:
        """End the process. Idempotent."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.process.kill()
            _release(child)
        self._keeper.shutdown()

    def _call(self, method: str, *arguments: object) -> Any:
        [value] = _twice(lambda: self.ask(_JUDGING, lambda _: Call(method, arguments)))
        return value

    def ask(self, channel: int, *requests: Callable[[_Child], object | None]) -> list[Any]:
        """Send requests, each made by a function of the process that will get it; None is not sent. Return the values.

        Raises:
            GuardLost: the process died or hung.
        """
        with self._channels[channel]:
            child = self._current()
            try:
                made = (make(child) for make in requests)
                return [child.ask(channel, request, self._patience) for request in made if request is not None]
            except (EOFError, TimeoutError) as error:
                raise GuardLost(self._lost(child, str(error))) from None

    def forgotten(self) -> tuple[int, ...]:
        """The streams that nobody reads any more; each is told once."""
        numbers = tuple(self._forgotten)
        del self._forgotten[: len(numbers)]
        return numbers

    def _current(self) -> _Child:
        with self._lock:
            if self._closed or self._fault:
                raise GuardLost(self._fault or "the guard is closed")
            if self._child is None:
                self._child = self._keeper.submit(self._begin).result()
            return self._child

    def _begin(self) -> _Child:
        child = _Child(*start_child("fulmen_serving.guarding.guard_worker", channels=2))
        try:
            self.name, self.policy_version = child.ask(_JUDGING, self._plan, None)
            if self._untold:
                child.ask(_JUDGING, Lost(tuple(self._untold)), self._patience)
                self._untold.clear()
        except EOFError:
            raise GuardLost(f"the guard's process died while it loaded its policy: {_release(child)}") from None
        except BaseException:
            _release(child)
            raise
        return child

    def _lost(self, child: _Child, reason: str) -> str:
        """A process is of no use any more: end it, and return why."""
        with self._lock:
            if self._child is not child:
                return "the guard's process died over another request"
            self._child = None
            if reason:
                child.process.kill()
            how = _release(child)
            self.deaths += 1
            reason = f"the guard's process died: {reason or how}"
            self._untold.append(reason)
            if self._restarts.crashed() is None:
                self._fault = f"{reason}, and too often to be started again"
            logger.error("%s", self._fault or reason)
            return self._fault or reason


class RemoteStream:
    """One guarded answer, read by whichever process is there."""

    def __init__(self, guard: GuardProcess, number: int, messages: Messages) -> None:
        self._guard, self.number, self._messages = guard, number, messages
        self._reader: _Child | None = None  # the process that has read it so far
        self._fed = ""
        self._delivered = self._findings = 0
        self._repeated = self._repeated_findings = 0  # of what comes next, what has been delivered already

    def feed(self, text: str) -> OutputChunk:
        """Take the next piece of the answer; return what is safe to deliver."""
        return _twice(lambda: self._try(text))

    def finish(self) -> OutputChunk:
        """The answer ended: return the rest."""
        return _twice(lambda: self._try(None))

    def opening(self, child: _Child) -> Open | None:
        """Return what opens the answer in a process that has not read it; None for the one that reads it."""
        if child is self._reader:
            return None
        self._reader, self._repeated, self._repeated_findings = child, self._delivered, self._findings
        return Open(self.number, self._messages, self._fed)

    def reopen(self) -> None:
        """What the process gave when the answer was opened is lost: open it again."""
        self._reader = None

    def fed(self, text: str | None, first: Sequence[Any] | None, fields: Sequence[Any]) -> OutputChunk:
        """Return the chunk of a piece that was fed, or of the end.

        Args:
            first: what a new process makes of what the one before it had read, if it was opened for this.
            fields: what it makes of the piece.
        """
        earlier = None if first is None else self._fresh(OutputChunk(*first))
        chunk = self._fresh(OutputChunk(*fields))
        self._fed += text or ""
        if earlier is None:
            return chunk
        return replace(chunk, text=earlier.text + chunk.text, findings=earlier.findings + chunk.findings)

    def _try(self, text: str | None) -> OutputChunk:
        def feeds(_: _Child) -> Feed:
            return Feed(self.number, text, self._guard.forgotten())

        *first, fields = self._guard.ask(_READING, self.opening, feeds)
        return self.fed(text, first[0] if first else None, fields)

    def _fresh(self, chunk: OutputChunk) -> OutputChunk:
        """What of `chunk` was not delivered before."""
        text, findings = chunk.text[self._repeated :], chunk.findings[self._repeated_findings :]
        self._repeated -= len(chunk.text) - len(text)
        self._repeated_findings -= len(chunk.findings) - len(findings)
        self._delivered += len(text)
        self._findings += len(findings)
        return replace(chunk, text=text, findings=findings)


def _twice(action: Callable[[], _T]) -> _T:
    """Do `action`, and once more if the guard was lost over it."""
    try:
        return action()
    except GuardLost:
        return action()


def _release(child: _Child) -> str:
    how = end_child(child.process)
    for channel in child.channels:
        channel.close()
    return how
