"""``POST /v1/completions``: text in, text out, without a chat template."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_core.tokenizer import Tokenizer
from fulmen_serving.api.answer_body import AnswerForm, Choice, Logprobs
from fulmen_serving.api.answer_logprobs import LogprobsForm
from fulmen_serving.api.answer_route import body_schema, respond
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.completion_request import CompletionRequest, parse_completion_request
from fulmen_serving.parsing.parts import AnswerPart, SaidDelta, WholeAnswer
from fulmen_serving.service import ChatService


def completion_form(tokenizer: Tokenizer) -> AnswerForm:
    """How text completions are written."""
    spelled = LogprobsForm(tokenizer)

    def choice(index: int, text: str, end: str | None, logprobs: Logprobs) -> Choice:
        told = None if logprobs is None else spelled.completion(logprobs)
        return {"index": index, "text": text, "logprobs": told, "finish_reason": end}

    def whole(index: int, answer: WholeAnswer, end: str, logprobs: Logprobs) -> Choice:
        return choice(index, answer.said, end, logprobs)

    def piece(index: int, part: AnswerPart | None, end: str | None, logprobs: Logprobs) -> Choice:
        return choice(index, part.text if isinstance(part, SaidDelta) else "", end, logprobs)

    return AnswerForm("text_completion", "text_completion", whole, piece)


def completion_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()
    form = completion_form(service.tokenizer)

    @router.post("/v1/completions", openapi_extra=body_schema(CompletionRequest))
    async def create_completion(request: Request) -> Response:
        """Continue a text, whole or as server-sent events."""
        asked = parse_completion_request(await read_json_object(request, max_body_bytes))
        return await respond(request, service, asked, asked.start, form)

    return router
