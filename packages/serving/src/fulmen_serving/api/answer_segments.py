"""An answer as segments in order: stretches of reasoning, of what is said, and calls of tools.

The protocols that write an answer as blocks or items (Anthropic's messages, OpenAI's responses) write one for each
segment. A stream and a whole answer are made of the same segments.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from fulmen_serving.engine.engine import TextDelta
from fulmen_serving.parsed_events import ParsedEvent
from fulmen_serving.parsing.parts import ReasoningDelta, ToolCallDelta

SegmentKind = Literal["reasoning", "said", "call"]


@dataclass(slots=True)
class Segment:
    """A stretch of an answer.

    Attributes:
        kind: what it is.
        index: its place in the answer, from 0.
        text: what there is of it so far; of a call its arguments, which are JSON when it is complete.
        name: of the function that is called.
        key: a random part of the ids that a protocol gives it.
    """

    kind: SegmentKind
    index: int
    text: str = ""
    name: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:24])


#: What happened to a segment; a piece is what it grew by.
SegmentEvent = tuple[Literal["opened", "grew", "closed"], Segment, str]


class Segments:
    """Takes the events of one answer."""

    def __init__(self) -> None:
        self.all: list[Segment] = []
        self._open: Segment | None = None

    @property
    def called(self) -> bool:
        """Whether a tool is called."""
        return any(segment.kind == "call" for segment in self.all)

    def take(self, event: ParsedEvent) -> Iterator[SegmentEvent]:
        """Take an event; those that are no part of the text change nothing."""
        match event:
            case TextDelta(text) if text:
                yield from self._grow("said", text)
            case ReasoningDelta(text):
                yield from self._grow("reasoning", text)
            case ToolCallDelta(_, None, arguments):
                yield from self._grow("call", arguments)
            case ToolCallDelta(_, str(name), arguments):
                yield from self._begin("call", name)
                yield from self._grow("call", arguments)

    def finish(self) -> Iterator[SegmentEvent]:
        """The answer ended."""
        if self._open is not None:
            yield "closed", self._open, ""
            self._open = None

    def _begin(self, kind: SegmentKind, name: str = "") -> Iterator[SegmentEvent]:
        yield from self.finish()
        self._open = Segment(kind, len(self.all), name=name)
        self.all.append(self._open)
        yield "opened", self._open, ""

    def _grow(self, kind: SegmentKind, piece: str) -> Iterator[SegmentEvent]:
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        if piece and self._open is not None:
            self._open.text += piece
            yield "grew", self._open, piece
