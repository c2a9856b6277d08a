"""The guard's process: the policy, its detectors, and the answers that they are reading. Started by `GuardProcess`.

Two channels, each with a thread: what is judged before it is answered, and the answers. Neither waits for the other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any

from fulmen_core.guard import Explains, Guard, OutputChunk, OutputStream, RecordsLosses
from fulmen_serving.guarding.messages import Call, Feed, FeedTogether, GuardPlan, Lost, Open, Reply
from fulmen_serving.guarding.together import feed_together
from fulmen_serving.loading import load_guard
from fulmen_serving.processes.portable_error import portable
from fulmen_serving.processes.settling import run_child, start_logging

_EXPLAINING = frozenset({"category_scores", "explain"})
_CHUNK = attrgetter("text", "stop", "findings", "category", "degraded")  # as `OutputChunk` takes them


class _Channel:
    """Answers the requests of one channel until it is closed."""

    def __init__(self, connection: Connection, guard: Guard) -> None:
        self._connection, self._guard = connection, guard
        self._streams: dict[int, OutputStream] = {}

    def run(self) -> None:
        while True:
            try:
                request = self._connection.recv()
            except (EOFError, OSError):
                return
            try:
                reply = Reply(self._answer(request))
            except Exception as error:  # a detector that raises, closed by policy: the caller fails closed
                reply = Reply(error=portable(error))
            self._connection.send(reply)

    def _answer(self, request: object) -> Any:
        if isinstance(request, Call):
            if request.method in _EXPLAINING and not isinstance(self._guard, Explains):
                return {}
            return getattr(self._guard, request.method)(*request.arguments)
        if isinstance(request, Lost):
            if isinstance(self._guard, RecordsLosses):
                for reason in request.reasons:
                    self._guard.record_loss(reason)
            return None
        if isinstance(request, Open):
            stream = self._streams[request.stream] = self._guard.open_output(request.messages)
            return _CHUNK(stream.feed(request.earlier) if request.earlier else OutputChunk(""))
        if not isinstance(request, Feed | FeedTogether):
            raise TypeError(f"{type(request).__name__} is no request")
        for number in request.forgotten:
            self._streams.pop(number, None)
        if isinstance(request, FeedTogether):
            return self._together(request.pieces)
        if request.text is None:
            return _CHUNK(self._streams.pop(request.stream).finish())
        return _CHUNK(self._streams[request.stream].feed(request.text))

    def _together(self, pieces: Sequence[tuple[int, str]]) -> list[Any]:
        given = feed_together(self._guard, [(self._streams[number], text) for number, text in pieces])
        return [portable(chunk) if isinstance(chunk, Exception) else _CHUNK(chunk) for chunk in given]


def serve(channels: Sequence[Connection]) -> int:
    """Load the guard that the first message names, and answer until the channels are closed."""
    first, *others = channels
    plan: GuardPlan = first.recv()
    start_logging(plan.log_level)
    try:
        guard = load_guard(plan.plugins.repeat(), plan.policy)
    except Exception as error:
        first.send(Reply(error=portable(error)))
        return 2
    first.send(Reply((guard.name, guard.policy_version)))
    for channel in others:
        threading.Thread(target=_Channel(channel, guard).run, daemon=True).start()
    _Channel(first, guard).run()
    return 0


if __name__ == "__main__":
    run_child(serve, sys.argv[1:])
