"""``POST /v1/completions``: text in, text out, without a chat template."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from fulmen_serving.api.answer_connection import AnswerStreamResponse, unless_left
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.chat_route import model_not_found
from fulmen_serving.api.completion_request import CompletionRequest, parse_completion_request
from fulmen_serving.api.completion_response import collect_completion, stream_completion
from fulmen_serving.service import ChatService


def completion_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()
    schema = {"content": {"application/json": {"schema": CompletionRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/completions", openapi_extra={"requestBody": schema})
    async def create_completion(request: Request) -> Response:
        """Continue a text, whole or as server-sent events."""
        asked = parse_completion_request(await read_json_object(request, max_body_bytes))
        if asked.model != service.model.name:
            raise model_not_found(asked.model, service.model.name)
        options = asked.options
        answer = await service.open_prompt(asked.start, options)
        if asked.stream:
            include_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
            return AnswerStreamResponse(stream_completion(answer, service.model, include_usage=include_usage), answer)
        try:
            body = await unless_left(request, collect_completion(answer, service.model, options.choices))
            return JSONResponse(body)
        finally:
            answer.close()

    return router
