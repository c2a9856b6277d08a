"""The bodies of text completions: the object and the chunks of a stream, which have one shape.

Source: https://platform.openai.com/docs/api-reference/completions/object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fulmen_serving.api.chat_response import answer_header, failure_of, server_event, usage_of
from fulmen_serving.api.errors import error_object
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.service import Answer, ServedModel


def _choice(index: int, text: str, end: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": end}


async def collect_completion(answer: Answer, model: ServedModel, choices: int) -> dict[str, Any]:
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
    return answer_header(answer, model, "text_completion") | {
        "choices": [_choice(index, "".join(pieces), answer.ends[index].reason) for index, pieces in enumerate(texts)],
        "usage": usage_of(answer),
    }


async def stream_completion(answer: Answer, model: ServedModel, *, include_usage: bool) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events, ending with ``[DONE]``; an error object instead if a choice failed."""
    header = answer_header(answer, model, "text_completion")
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    async for index, event in answer:
        match event:
            case TextDelta(text):
                yield server_event(header | {"choices": [_choice(index, text, None)]} | usage)
            case AnswerEnd():
                yield server_event(header | {"choices": [_choice(index, "", event.reason)]} | usage)
            case AnswerFailure():
                yield server_event(error_object(failure_of(event)))
                return
    if include_usage:
        yield server_event(header | {"choices": [], "usage": usage_of(answer)})
    yield b"data: [DONE]\n\n"
