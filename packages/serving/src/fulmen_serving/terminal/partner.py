"""Who answers in a terminal chat."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from fulmen_serving.engine.engine import AnswerEvent
from fulmen_serving.prompt import Message


class Partner(Protocol):
    """Answers conversations, one at a time, all in one event loop."""

    async def open(self) -> str:
        """Get ready; return the model's name. Raises `UserError` if nobody answers."""
        ...

    def answer(self, messages: Sequence[Message]) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of one answer, an end or a failure last. Closing the iterator stops the generation.

        Raises:
            UserError: the conversation is refused.
        """
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...
