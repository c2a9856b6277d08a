"""The parser of one answer: reasoning first, then what is said and calls of tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fulmen_serving.parsing.parts import AnswerPart, SaidDelta
from fulmen_serving.parsing.reasoning import ReasoningParser
from fulmen_serving.parsing.tool_calls import ToolCallParser


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What the text of an answer may hold beside what is said.

    Attributes:
        reasoning: reasoning at its beginning.
        starts_inside: it starts inside its reasoning: the prompt has opened it.
        tools: calls of tools.
    """

    reasoning: bool = False
    starts_inside: bool = False
    tools: bool = False


#: Nothing but text.
PLAIN_TEXT = AnswerFormat()


class AnswerParser:
    """Takes the text of one answer in pieces and gives its parts, the same ones however it was cut."""

    def __init__(self, form: AnswerFormat) -> None:
        self._reasoning = ReasoningParser(inside=form.starts_inside) if form.reasoning else None
        self._tools = ToolCallParser() if form.tools else None

    def push(self, text: str) -> Iterator[AnswerPart]:
        """Take the next piece of text."""
        if self._reasoning is not None:
            yield from self._said(self._reasoning.push(text))
        elif text:
            yield from self._said(iter([SaidDelta(text)]))

    def finish(self) -> Iterator[AnswerPart]:
        """The text ended: give what was held back."""
        if self._reasoning is not None:
            yield from self._said(self._reasoning.finish())
        if self._tools is not None:
            yield from self._tools.finish()

    def _said(self, parts: Iterator[AnswerPart]) -> Iterator[AnswerPart]:
        for part in parts:
            if self._tools is not None and isinstance(part, SaidDelta):
                yield from self._tools.push(part.text)
            else:
                yield part
