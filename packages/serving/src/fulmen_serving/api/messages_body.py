"""An answer as Anthropic's message, whole or as the events of a stream.

Source: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Scope

from fulmen_serving.api.answer_body import failure_of
from fulmen_serving.api.errors import error_event
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.service import Answer, ServedModel


async def collect_message(answer: Answer, model: ServedModel) -> dict[str, Any]:
    """Wait for the whole answer and return its message.

    Raises:
        Refusal: 500 if it failed.
    """
    pieces: list[str] = []
    async for _, event in answer:
        match event:
            case TextDelta(text):
                pieces.append(text)
            case AnswerFailure():
                raise failure_of(event)
            case AnswerEnd():
                pass
    content = [_text_block("".join(pieces))] if pieces else []
    usage = _input_usage(answer) | {"output_tokens": answer.completion_tokens}
    return _message(answer, model, content, usage) | _stop(answer.ends[0])


async def stream_message(answer: Answer, model: ServedModel, scope: Scope) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events; an error event is the last one if it failed."""
    usage = _input_usage(answer) | {"output_tokens": 0}
    unfinished = {"stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message=_message(answer, model, [], usage) | unfinished)
    yield _event("ping")
    opened = False
    async for _, event in answer:
        match event:
            case TextDelta(text):
                if not opened:
                    opened = True
                    yield _event("content_block_start", index=0, content_block=_text_block(""))
                yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
            case AnswerEnd():
                if opened:
                    yield _event("content_block_stop", index=0)
                usage = {"output_tokens": event.completion_tokens}
                yield _event("message_delta", delta=_stop(event), usage=usage)
                yield _event("message_stop")
            case AnswerFailure():
                yield error_event(failure_of(event), scope)


def _message(answer: Answer, model: ServedModel, content: list[Any], usage: dict[str, int]) -> dict[str, Any]:
    return {
        "id": answer.request_id,
        "type": "message",
        "role": "assistant",
        "model": model.name,
        "content": content,
        "usage": usage,
    }


def _text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _input_usage(answer: Answer) -> dict[str, int]:
    reused = answer.reused_tokens  # Anthropic counts them apart
    return {
        "input_tokens": answer.prompt_tokens - reused,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
    }


def _stop(end: AnswerEnd) -> dict[str, str | None]:
    match end.reason:
        case "content_filter":
            return {"stop_reason": "refusal", "stop_sequence": None}
        case "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        case "stop" if end.stop_string is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_string}
    return {"stop_reason": "end_turn", "stop_sequence": None}


def _event(kind: str, **fields: Any) -> bytes:
    body = json.dumps({"type": kind} | fields, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()
