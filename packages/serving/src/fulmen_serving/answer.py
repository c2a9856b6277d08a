"""The answer to one request while it comes, whichever protocol asked for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.engine import AnswerEnd, AnswerEvent
from fulmen_serving.engine.sequence import Decision
from fulmen_serving.parsed_events import ParsedEvent, ParsedEvents
from fulmen_serving.parsing.answer_parser import PLAIN_TEXT, AnswerFormat

#: Sent where the guard could not ask all of its detectors about the prompt.
GUARD_HEADER = "X-Fulmen-Guard"


class Answer:
    """The answers to one request: iterate over pairs of choice and event, and close it in any case.

    Attributes:
        request_id: unique, starts with "chatcmpl-" for a conversation and "cmpl-" for a text.
        prompt_tokens: of the prompt as it was given to the model.
        completion_tokens: generated so far in all choices that ended.
        degraded: detectors of the guard that gave no result on the prompt.
    """

    def __init__(
        self,
        request_id: str,
        prompt_tokens: int,
        events: AsyncIterator[tuple[int, AnswerEvent]],
        done: Callable[[Answer], None],
        form: AnswerFormat = PLAIN_TEXT,
        degraded: tuple[str, ...] = (),
    ) -> None:
        self.request_id, self.prompt_tokens, self.degraded = request_id, prompt_tokens, degraded
        self.ends: dict[int, AnswerEnd] = {}
        self._events, self._done, self._closed = events, done, False
        self._parsed = ParsedEvents(events, form)

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were found computed, of the first choice that ended."""
        return self.ends[min(self.ends)].reused_tokens if self.ends else 0

    @property
    def completion_tokens(self) -> int:
        """Tokens of the choices that ended."""
        return sum(end.completion_tokens for end in self.ends.values())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, ParsedEvent]:
        index, event = await self._parsed.__anext__()
        if isinstance(event, AnswerEnd):
            self.ends[index] = event
        return index, event

    def close(self) -> None:
        """Abort what has not ended and report the request as done. Idempotent."""
        if not self._closed:
            self._closed = True
            if isinstance(self._events, AnswerStream):
                self._events.close()
            self._done(self)


def explanation(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    """What the engine decided about an answer and why, in order; `at` is in seconds since it came."""
    return [{"at": round(one.at, 6), "what": one.what, "why": one.why} for one in decisions]


def guard_state(end: AnswerEnd) -> dict[str, object]:
    """What the guard did to an answer, as a field of what is sent; nothing where it worked and did nothing.

    ``category`` is why it ended the answer (``guard_failure``: it could not judge), ``degraded`` which of its detectors
    gave no result.
    """
    if not (end.category or end.degraded):
        return {}
    return {"guard": {"category": end.category, "degraded": list(end.degraded)}}


def guard_headers(degraded: Sequence[str]) -> dict[str, str]:
    """The header that says which detectors gave no result on the prompt; none if all did."""
    return {GUARD_HEADER: f"degraded; detectors={','.join(degraded)}"} if degraded else {}
