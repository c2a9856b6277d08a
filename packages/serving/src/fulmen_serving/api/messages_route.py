"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's protocol over the same service."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_serving.api.answer_connection import AnswerStreamResponse
from fulmen_serving.api.answer_route import body_schema, whole_answer
from fulmen_serving.api.anthropic_error import MESSAGES_PATH
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.messages_body import collect_message, stream_message
from fulmen_serving.api.messages_request import (
    CountTokensRequest,
    MessagesRequest,
    parse_count_tokens_request,
    parse_messages_request,
)
from fulmen_serving.service import ChatService


def messages_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the two routes over `service`."""
    router = APIRouter(prefix=MESSAGES_PATH)

    @router.post("", openapi_extra=body_schema(MessagesRequest))
    async def create_message(request: Request) -> Response:
        """Answer a conversation in Anthropic's form, whole or as server-sent events."""
        asked = parse_messages_request(await read_json_object(request, max_body_bytes), reasons=service.model.reasoning)
        model = await service.find_model(asked.model)
        answer = await service.open(asked.start, replace(asked.options, model=model))
        if asked.stream:
            return AnswerStreamResponse(stream_message(answer, model, request.scope), answer)
        return await whole_answer(request, answer, collect_message(answer, model))

    @router.post("/count_tokens", openapi_extra=body_schema(CountTokensRequest))
    async def count_message_tokens(request: Request) -> dict[str, int]:
        """The tokens of a conversation as the model would see it. The model does not run."""
        asked = parse_count_tokens_request(await read_json_object(request, max_body_bytes))
        await service.find_model(asked.model)
        return {"input_tokens": len(await asyncio.to_thread(service.encode, asked.start))}

    return router
