"""How a route answers, once its body has been read. Whatever happens to the connection, the answer is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from fulmen_serving.answer import Answer, guard_headers
from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.api.answer_body import AnswerForm, collect, stream
from fulmen_serving.api.answer_connection import AnswerStreamResponse, unless_left
from fulmen_serving.api.answer_request import AnswerRequest
from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.prompt import Prompt
from fulmen_serving.service import ChatService
from fulmen_serving.tools.tool_loop import ToolAnswer

P = TypeVar("P", bound=Prompt)


async def respond(
    request: Request,
    service: ChatService,
    asked: AnswerRequest,
    prompt: P,
    form: AnswerForm,
    opener: Callable[[P, AnswerOptions], Awaitable[Answer | ToolAnswer]] | None = None,
) -> Response:
    """Answer `prompt` as `asked`, whole or as server-sent events; `opener` opens the answer in place of the service.

    Raises:
        Refusal: the model is not served, or the service refuses it.
    """
    model = await service.find_model(asked.model)
    answer = await (opener or service.open)(prompt, replace(asked.options, model=model))
    if asked.stream:
        chunks = stream(answer, model, form, asked.choices, include_usage=asked.include_usage, explain=asked.explain)
        return AnswerStreamResponse(chunks, answer)
    told = asked.options.logprobs is not None
    body = collect(answer, model, form, asked.choices, logprobs=told, explain=asked.explain)
    return await whole_answer(request, answer, body)


async def whole_answer(
    request: Request, answer: Answer | ToolAnswer, body: Coroutine[Any, Any, dict[str, Any]]
) -> Response:
    """Await the `body` that is made of `answer`, unless the client leaves before."""
    try:
        return JSONResponse(await unless_left(request, body), headers=guard_headers(answer.degraded))
    finally:
        answer.close()


def body_schema(model: type[StrictModel]) -> dict[str, Any]:
    """The body of `model` in the OpenAPI document; bodies are read by hand, so FastAPI cannot know it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}
