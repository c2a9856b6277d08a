"""``POST /v1/completions``: text in, text out, without a chat template."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_serving.api.answer_body import AnswerForm, Choice
from fulmen_serving.api.answer_route import body_schema, respond
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.completion_request import CompletionRequest, parse_completion_request
from fulmen_serving.service import ChatService


def _choice(index: int, text: str, end: str | None) -> Choice:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": end}


FORM = AnswerForm("text_completion", "text_completion", _choice, _choice)


def completion_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()

    @router.post("/v1/completions", openapi_extra=body_schema(CompletionRequest))
    async def create_completion(request: Request) -> Response:
        """Continue a text, whole or as server-sent events."""
        asked = parse_completion_request(await read_json_object(request, max_body_bytes))
        return await respond(request, service, asked, asked.start, FORM)

    return router
