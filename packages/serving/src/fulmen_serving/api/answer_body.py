"""The bodies of an answer: the whole object, and the chunks of a stream. Routes differ in how a choice looks.

Source: https://platform.openai.com/docs/api-reference/chat/object, /chat/streaming and /completions/object.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from fulmen_serving.answer import Answer, explanation, guard_state
from fulmen_serving.api.errors import error_object
from fulmen_serving.engine.answer_logprobs import AnswerToken
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.parsing.parts import AnswerPart, ReasoningDelta, SaidDelta, ToolCallDelta, WholeAnswer
from fulmen_serving.refusal import Refusal
from fulmen_serving.served_model import ServedModel
from fulmen_serving.tools.tool_events import ToolActivity
from fulmen_serving.tools.tool_loop import ToolAnswer

Choice = dict[str, Any]
Logprobs = Sequence[AnswerToken] | None


class AnswerForm(NamedTuple):
    """How a route writes an answer.

    Attributes:
        kind, chunk_kind: OpenAI's names of the object and of a stream's chunk.
        whole: a choice of the object, of its index, answer, finish reason and log probabilities (None: not asked for).
        piece: a choice of a chunk, of its index, a part of the answer (None: of nothing), finish reason (None before
            the end) and log probabilities (None: none come with it).
        opening: a choice of a chunk that begins a stream, of its index; None begins with text.
        tools: a choice of a chunk that tells what a tool of the server does; None if none is ever used.
    """

    kind: str
    chunk_kind: str
    whole: Callable[[int, WholeAnswer, str, Logprobs], Choice]
    piece: Callable[[int, AnswerPart | None, str | None, Logprobs], Choice]
    opening: Callable[[int], Choice] | None = None
    tools: Callable[[int, ToolActivity], Choice] | None = None


async def collect(
    answer: Answer | ToolAnswer,
    model: ServedModel,
    form: AnswerForm,
    choices: int,
    *,
    logprobs: bool = False,
    explain: bool = False,
) -> dict[str, Any]:
    """Wait for the whole answer and return its object.

    Raises:
        Refusal: 500 if a choice failed.
    """
    answers = [WholeAnswer() for _ in range(choices)]
    tokens: list[list[AnswerToken]] = [[] for _ in range(choices)]
    used: list[ToolActivity] = []
    async for index, event in answer:
        match event:
            case TextDelta(text, told):
                answers[index].add(SaidDelta(text))
                tokens[index] += told
            case ReasoningDelta() | ToolCallDelta():
                answers[index].add(event)
            case AnswerFailure():
                raise failure_of(event)
            case ToolActivity():
                used.append(event)
            case AnswerEnd():
                pass
    whole = [
        form.whole(
            index,
            one,
            _finish_reason(answer.ends[index], called=bool(one.calls)),
            tokens[index] if logprobs else None,
        )
        | guard_state(answer.ends[index])
        for index, one in enumerate(answers)
    ]
    if used:
        whole[0]["message"]["server_tools"] = [event.as_json() for event in used if event.status != "running"]
    return _header(answer, model, form.kind) | {
        "choices": whole,
        "usage": _usage_of(answer),
        **(_explanation(answer) if explain else {}),
    }


async def stream(
    answer: Answer | ToolAnswer,
    model: ServedModel,
    form: AnswerForm,
    choices: int,
    *,
    include_usage: bool,
    explain: bool = False,
) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events, ending with ``[DONE]``; an error object instead if a choice failed."""
    header = _header(answer, model, form.chunk_kind)
    usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def chunk(choice: Choice) -> bytes:
        return _server_event(header | {"choices": [choice]} | usage)

    if form.opening is not None:
        for index in range(choices):
            yield chunk(form.opening(index))
    called: set[int] = set()
    async for index, event in answer:
        match event:
            case TextDelta(text, tokens):
                yield chunk(form.piece(index, SaidDelta(text) if text else None, None, tokens or None))
            case ReasoningDelta() | ToolCallDelta():
                if isinstance(event, ToolCallDelta):
                    called.add(index)
                yield chunk(form.piece(index, event, None, None))
            case ToolActivity():
                if form.tools is not None:
                    yield chunk(form.tools(index, event))
            case AnswerEnd():
                last = form.piece(index, None, _finish_reason(event, called=index in called), None)
                yield chunk(last | guard_state(event))
            case AnswerFailure():
                yield _server_event(error_object(failure_of(event)))
                return
    if include_usage or explain:
        used = _usage_of(answer) if include_usage else None
        yield _server_event(header | {"choices": [], "usage": used} | (_explanation(answer) if explain else {}))
    yield b"data: [DONE]\n\n"


def _header(answer: Answer | ToolAnswer, model: ServedModel, kind: str) -> dict[str, Any]:
    return {
        "id": answer.request_id,
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": model.fingerprint,
    }


def _finish_reason(end: AnswerEnd, *, called: bool) -> str:
    return "tool_calls" if called and end.reason == "stop" else end.reason


def _usage_of(answer: Answer | ToolAnswer) -> dict[str, Any]:
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answer.reused_tokens},
    }


def _explanation(answer: Answer | ToolAnswer) -> dict[str, Any]:
    return {"explanation": [explanation(end.decisions) for _, end in sorted(answer.ends.items())]}


def failure_of(event: AnswerFailure) -> Refusal:
    """The refusal that tells of a failed answer."""
    return Refusal(500, event.message, code="generation_failed")


def _server_event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
