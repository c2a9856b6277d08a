"""A model in this process, behind the same guard as the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.engine.engine import AnswerEvent
from fulmen_serving.parsing.parts import ReasoningDelta, ToolCallDelta
from fulmen_serving.prompt import ChatPrompt, Message
from fulmen_serving.service import ChatService


class LocalPartner:
    """A `ChatService`, which it closes."""

    def __init__(self, service: ChatService, options: AnswerOptions) -> None:
        self._service, self._options = service, options

    async def open(self) -> str:
        """The model's name."""
        return self._service.model.name

    async def answer(self, messages: Sequence[Message]) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of one answer."""
        answer = await self._service.open(ChatPrompt(tuple(messages)), self._options)
        try:
            async for _, event in answer:
                if not isinstance(event, ReasoningDelta | ToolCallDelta):  # the terminal shows what is said
                    yield event
        finally:
            answer.close()

    async def close(self) -> None:
        """Stop the engine."""
        self._service.close()
