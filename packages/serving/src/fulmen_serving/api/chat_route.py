"""``POST /v1/chat/completions``: a conversation in, the assistant's next turn out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_serving.api.answer_body import AnswerForm, Choice
from fulmen_serving.api.answer_route import body_schema, respond
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.chat_request import ChatCompletionRequest, parse_chat_request
from fulmen_serving.service import ChatService


def _whole(index: int, text: str, end: str) -> Choice:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": end}


def _piece(index: int, text: str, end: str | None) -> Choice:
    return {"index": index, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": end}


def _opening(index: int) -> Choice:
    delta = {"role": "assistant", "content": "", "refusal": None}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


FORM = AnswerForm("chat.completion", "chat.completion.chunk", _whole, _piece, _opening)


def chat_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        asked = parse_chat_request(await read_json_object(request, max_body_bytes))
        return await respond(request, service, asked, asked.start, FORM)

    return router
