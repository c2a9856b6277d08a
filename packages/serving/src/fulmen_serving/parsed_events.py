"""The events of an answer with its text taken apart: reasoning and calls of tools beside what is said."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Self

from fulmen_serving.engine.engine import AnswerEnd, AnswerEvent, TextDelta
from fulmen_serving.parsing.answer_parser import PLAIN_TEXT, AnswerFormat, AnswerParser
from fulmen_serving.parsing.parts import AnswerPart, ReasoningDelta, SaidDelta, ToolCallDelta

ParsedEvent = AnswerEvent | ReasoningDelta | ToolCallDelta


class ParsedEvents:
    """Iterates over pairs of choice and event; `TextDelta` is what is said. What comes in has passed the guard.

    Where text is taken apart, log probabilities come before the parts of the text they belong to.
    """

    def __init__(self, events: AsyncIterator[tuple[int, AnswerEvent]], form: AnswerFormat) -> None:
        self._events, self._form = events, form
        self._parsers: dict[int, AnswerParser] = {}
        self._ready: deque[tuple[int, ParsedEvent]] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, ParsedEvent]:
        while not self._ready:
            index, event = await self._events.__anext__()
            if self._form == PLAIN_TEXT:
                return index, event
            parser = self._parsers.setdefault(index, AnswerParser(self._form))
            match event:
                case TextDelta(text, logprobs):
                    if logprobs:
                        self._ready.append((index, TextDelta("", logprobs)))
                    self._add(index, parser.push(text))
                case AnswerEnd():
                    self._add(index, parser.finish())
                    self._ready.append((index, event))
                case _:
                    self._ready.append((index, event))
        return self._ready.popleft()

    def _add(self, index: int, parts: Iterable[AnswerPart]) -> None:
        for part in parts:
            self._ready.append((index, TextDelta(part.text) if isinstance(part, SaidDelta) else part))
