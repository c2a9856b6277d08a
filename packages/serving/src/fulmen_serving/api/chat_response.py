"""The bodies of chat completions: the object and the chunks of a stream.

Source: https://platform.openai.com/docs/api-reference/chat/object and /chat/streaming.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fulmen_serving.api.errors import error_object
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import Answer, ServedModel


def answer_header(answer: Answer, model: ServedModel, kind: str) -> dict[str, Any]:
    """What every object and chunk of an answer begins with; `kind` is OpenAI's name of it."""
    return {
        "id": answer.request_id,
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": model.fingerprint,
    }


def usage_of(answer: Answer) -> dict[str, int]:
    """The tokens of a whole answer."""
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def failure_of(event: AnswerFailure) -> Refusal:
    """The error of an answer that could not be completed."""
    return Refusal(500, event.message, code="generation_failed")


async def collect(answer: Answer, model: ServedModel, choices: int) -> dict[str, Any]:
    """Wait for the whole answer and return the completion object.

    Raises:
        Refusal: 500 if a choice failed.
    """
    texts: list[list[str]] = [[] for _ in range(choices)]
    async for index, event in answer:
        match event:
            case TextDelta(text):
                texts[index].append(text)
            case AnswerFailure():
                raise failure_of(event)
            case AnswerEnd():
                pass
    return answer_header(answer, model, "chat.completion") | {
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(pieces), "refusal": None},
                "logprobs": None,
                "finish_reason": answer.ends[index].reason,
            }
            for index, pieces in enumerate(texts)
        ],
        "usage": usage_of(answer),
    }


async def stream_chunks(
    answer: Answer, model: ServedModel, choices: int, *, include_usage: bool
) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events, ending with ``[DONE]``; an error object instead if a choice failed."""
    header = answer_header(answer, model, "chat.completion.chunk")
    usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def chunk(index: int, delta: dict[str, Any], end: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
        return server_event(header | {"choices": [choice]} | usage)

    for index in range(choices):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
    async for index, event in answer:
        match event:
            case TextDelta(text):
                yield chunk(index, {"content": text})
            case AnswerEnd():
                yield chunk(index, {}, event.reason)
            case AnswerFailure():
                yield server_event(error_object(failure_of(event)))
                return
    if include_usage:
        yield server_event(header | {"choices": [], "usage": usage_of(answer)})
    yield b"data: [DONE]\n\n"


def server_event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
