"""``POST /v1/chat/completions``. Whatever happens to the connection, the answer is closed, which frees its slots."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from fulmen_serving.api.answer_connection import AnswerStreamResponse, unless_left
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.chat_request import ChatCompletionRequest, parse_chat_request
from fulmen_serving.api.chat_response import collect, stream_chunks
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import ChatService


def chat_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()
    schema = {"content": {"application/json": {"schema": ChatCompletionRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/chat/completions", openapi_extra={"requestBody": schema})
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        asked = parse_chat_request(await read_json_object(request, max_body_bytes))
        if asked.model != service.model.name:
            raise model_not_found(asked.model, service.model.name)
        options = asked.options
        answer = await service.open([message.model_dump() for message in asked.messages], options)
        if asked.stream:
            include_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
            chunks = stream_chunks(answer, service.model, options.choices, include_usage=include_usage)
            return AnswerStreamResponse(chunks, answer)
        try:
            return JSONResponse(await unless_left(request, collect(answer, service.model, options.choices)))
        finally:
            answer.close()

    return router


def model_not_found(name: str, served: str) -> Refusal:
    """The refusal of a model that is not served here."""
    return Refusal(
        404, f"The model '{name}' does not exist; this server serves '{served}'", code="model_not_found", param="model"
    )
