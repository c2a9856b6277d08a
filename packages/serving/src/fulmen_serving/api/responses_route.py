"""``POST /v1/responses``: OpenAI's newer protocol for an answer. Nothing is stored, so there is nothing to retrieve."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_serving.api.answer_connection import AnswerStreamResponse
from fulmen_serving.api.answer_route import body_schema, whole_answer
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.responses_body import ResponseWriter
from fulmen_serving.api.responses_request import ResponsesRequest, parse_responses_request
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import ChatService


def responses_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()

    @router.post("/v1/responses", openapi_extra=body_schema(ResponsesRequest))
    async def create_response(request: Request) -> Response:
        """Answer a conversation as a response object, whole or as server-sent events."""
        asked = parse_responses_request(await read_json_object(request, max_body_bytes))
        model = await service.find_model(asked.model)
        try:
            answer = await service.open(asked.start, replace(asked.options, model=model))
        except Refusal as refusal:
            if refusal.param == "max_tokens":  # the service's name for it
                refusal.param = "max_output_tokens"
            raise
        writer = ResponseWriter(answer, asked, model, service.tokenizer)
        if asked.stream:
            return AnswerStreamResponse(writer.stream(), answer)
        return await whole_answer(request, answer, writer.collect())

    return router
