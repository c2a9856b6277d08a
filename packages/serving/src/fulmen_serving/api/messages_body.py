"""An answer as Anthropic's message, whole or as the events of a stream: each segment is a content block.

Source: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json
from starlette.types import Scope

from fulmen_serving.answer import Answer, guard_state
from fulmen_serving.api.answer_body import failure_of
from fulmen_serving.api.answer_segments import Segment, SegmentEvent, Segments
from fulmen_serving.api.errors import error_event
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure
from fulmen_serving.refusal import Refusal
from fulmen_serving.served_model import ServedModel


async def collect_message(answer: Answer, model: ServedModel) -> dict[str, Any]:
    """Wait for the whole answer and return its message.

    Raises:
        Refusal: 500 if it failed, or calls a tool with arguments that are no JSON.
    """
    segments = Segments()
    async for _, event in answer:
        if isinstance(event, AnswerFailure):
            raise failure_of(event)
        for _ in segments.take(event):
            pass
    content = [_whole_block(segment) for segment in segments.all]
    usage = _input_usage(answer) | {"output_tokens": answer.completion_tokens}
    end = answer.ends[0]
    return _message(answer, model, content, usage) | _stop(end, called=segments.called) | guard_state(end)


async def stream_message(answer: Answer, model: ServedModel, scope: Scope) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events; an error event is the last one if it failed."""
    usage = _input_usage(answer) | {"output_tokens": 0}
    unfinished = {"stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message=_message(answer, model, [], usage) | unfinished)
    yield _event("ping")
    segments = Segments()
    async for _, event in answer:
        if isinstance(event, AnswerFailure):
            yield error_event(failure_of(event), scope)
            return
        for change in segments.take(event):
            yield _block_event(change)
        if isinstance(event, AnswerEnd):
            for change in segments.finish():
                yield _block_event(change)
            usage = _input_usage(answer) | {"output_tokens": event.completion_tokens}  # what was reused is known now
            stop = _stop(event, called=segments.called)
            yield _event("message_delta", delta=stop, usage=usage, **guard_state(event))
            yield _event("message_stop")


def _message(answer: Answer, model: ServedModel, content: list[Any], usage: dict[str, int]) -> dict[str, Any]:
    return {
        "id": answer.request_id,
        "type": "message",
        "role": "assistant",
        "model": model.name,
        "content": content,
        "usage": usage,
    }


def _block_event(change: SegmentEvent) -> bytes:
    what, segment, piece = change
    if what == "opened":
        return _event("content_block_start", index=segment.index, content_block=_block(segment, "", {}))
    if what == "closed":
        return _event("content_block_stop", index=segment.index)
    match segment.kind:
        case "said":
            delta = {"type": "text_delta", "text": piece}
        case "reasoning":
            delta = {"type": "thinking_delta", "thinking": piece}
        case "call":
            delta = {"type": "input_json_delta", "partial_json": piece}
    return _event("content_block_delta", index=segment.index, delta=delta)


def _whole_block(segment: Segment) -> dict[str, Any]:
    return _block(segment, segment.text, _input_of(segment) if segment.kind == "call" else {})


def _block(segment: Segment, text: str, arguments: dict[str, Any]) -> dict[str, Any]:
    match segment.kind:
        case "said":
            return {"type": "text", "text": text}
        case "reasoning":  # nothing signs it: it is not encrypted
            return {"type": "thinking", "thinking": text, "signature": ""}
        case "call":
            return {"type": "tool_use", "id": f"toolu_{segment.key}", "name": segment.name, "input": arguments}


def _input_of(segment: Segment) -> dict[str, Any]:
    """The arguments of a call as an object; of one that was cut off, what there is, as Anthropic's clients read it.

    Raises:
        Refusal: 500, they are no JSON object.
    """
    try:
        arguments = from_json(segment.text or "{}", allow_partial="trailing-strings")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise Refusal(
            500,
            f"The model called '{segment.name}' with arguments that are no JSON object",
            code="generation_failed",
        )
    return arguments


def _input_usage(answer: Answer) -> dict[str, int]:
    reused = answer.reused_tokens  # Anthropic counts them apart
    return {
        "input_tokens": answer.prompt_tokens - reused,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
    }


def _stop(end: AnswerEnd, *, called: bool) -> dict[str, str | None]:
    match end.reason:
        case "content_filter":
            return {"stop_reason": "refusal", "stop_sequence": None}
        case "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        case "stop" if end.stop_string is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_string}
    return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}


def _event(kind: str, **fields: Any) -> bytes:
    body = json.dumps({"type": kind} | fields, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()
