"""The engine for asyncio: submit, iterate over events, close."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.engine import AnswerEvent, Engine, Tally, TextDelta
from fulmen_serving.engine.sequence import GenerationRequest


class AnswerStream:
    """The events of one call's answers, as pairs of index and event. Close it, whatever happens: that frees the slots.

    Must be made in the event loop that iterates over it.

    Raises:
        EngineFull: there is no room now.
        EngineStopped: the engine takes no requests.
    """

    def __init__(
        self, engine: Engine, answers: Sequence[tuple[GenerationRequest, AnswerText]], tally: Tally | None = None
    ) -> None:
        self._engine = engine
        self._indices = {request.request_id: index for index, (request, _) in enumerate(answers)}
        self._open = set(self._indices)
        self._events: asyncio.Queue[tuple[str, AnswerEvent]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def sink(request_id: str, event: AnswerEvent) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, (request_id, event))

        engine.submit(answers, sink, tally)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, AnswerEvent]:
        if not self._open:
            raise StopAsyncIteration
        request_id, event = await self._events.get()
        if not isinstance(event, TextDelta):
            self._open.discard(request_id)
        return self._indices[request_id], event

    def close(self) -> None:
        """Abort what has not ended. Idempotent."""
        for request_id in self._open:
            self._engine.abort(request_id)
        self._open.clear()
