"""``POST /v1/chat/completions``: a conversation in, the assistant's next turn out."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fulmen_core.tokenizer import Tokenizer
from fulmen_serving.api.answer_body import AnswerForm, Choice, Logprobs
from fulmen_serving.api.answer_logprobs import LogprobsForm
from fulmen_serving.api.answer_route import body_schema, respond
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.chat_request import ChatCompletionRequest, parse_chat_request
from fulmen_serving.parsing.parts import AnswerPart, ReasoningDelta, SaidDelta, ToolCallDelta, WholeAnswer
from fulmen_serving.service import ChatService
from fulmen_serving.tools.tool_events import ToolActivity
from fulmen_serving.tools.tool_loop import open_with_tools
from fulmen_serving.tools.toolbox import Toolbox


def _message(answer: WholeAnswer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.said, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["content"] = answer.said or None
        message["tool_calls"] = [
            {
                "id": _new_call_id(),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    return message


def _delta(part: AnswerPart | None) -> dict[str, Any]:
    match part:
        case None:
            return {}
        case SaidDelta(text):
            return {"content": text}
        case ReasoningDelta(text):
            return {"reasoning_content": text}
        case ToolCallDelta(call, None, arguments):
            return {"tool_calls": [{"index": call, "function": {"arguments": arguments}}]}
        case ToolCallDelta(call, name, arguments):
            function = {"name": name, "arguments": arguments}
            begun = {"index": call, "id": _new_call_id(), "type": "function", "function": function}
            return {"tool_calls": [begun]}


def _opening(index: int) -> Choice:
    delta = {"role": "assistant", "content": "", "refusal": None}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _tools(index: int, activity: ToolActivity) -> Choice:
    delta = {"server_tools": [activity.as_json()]}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def chat_form(tokenizer: Tokenizer) -> AnswerForm:
    """How chat completions are written."""
    spelled = LogprobsForm(tokenizer)

    def told(logprobs: Logprobs) -> dict[str, Any] | None:
        return None if logprobs is None else spelled.chat(logprobs)

    def whole(index: int, answer: WholeAnswer, end: str, logprobs: Logprobs) -> Choice:
        return {"index": index, "message": _message(answer), "logprobs": told(logprobs), "finish_reason": end}

    def piece(index: int, part: AnswerPart | None, end: str | None, logprobs: Logprobs) -> Choice:
        return {"index": index, "delta": _delta(part), "logprobs": told(logprobs), "finish_reason": end}

    return AnswerForm("chat.completion", "chat.completion.chunk", whole, piece, _opening, _tools)


def chat_router(service: ChatService, max_body_bytes: int, toolbox: Toolbox) -> APIRouter:
    """Make the route over `service`, whose model may use what `toolbox` holds where a request allows it."""
    router = APIRouter()
    form = chat_form(service.tokenizer)

    @router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        asked = parse_chat_request(await read_json_object(request, max_body_bytes))
        opener = None
        if allowed := toolbox.allowed(asked.server_tools or ()):
            asked = asked.with_tools([tool.definition for tool in allowed.values()])
            opener = partial(open_with_tools, service, toolbox, allowed)
        return await respond(request, service, asked, asked.start, form, opener)

    return router


def _new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
