"""What a parser makes of text. Parts are pieces too: equal neighbours belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class SaidDelta:
    """The next piece of what is said to the user, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of the reasoning before it, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The beginning of a call (with its name) or the next piece of its arguments (without).

    Attributes:
        call: which, from 0.
        name: of the function.
        arguments: JSON, as the model wrote it.
    """

    call: int
    name: str | None = None
    arguments: str = ""


AnswerPart = SaidDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as a whole."""

    name: str
    arguments: str = ""


@dataclass(slots=True)
class WholeAnswer:
    """All parts of an answer, put together."""

    reasoning: str = ""
    said: str = ""
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, part: AnswerPart) -> None:
        """Take the next part."""
        match part:
            case SaidDelta(text):
                self.said += text
            case ReasoningDelta(text):
                self.reasoning += text
            case ToolCallDelta(_, str(name), arguments):
                self.calls.append(ToolCall(name, arguments))
            case ToolCallDelta(call, None, arguments):
                self.calls[call] = replace(self.calls[call], arguments=self.calls[call].arguments + arguments)


def whole(parts: Iterable[AnswerPart]) -> WholeAnswer:
    """Put `parts` together."""
    answer = WholeAnswer()
    for part in parts:
        answer.add(part)
    return answer
