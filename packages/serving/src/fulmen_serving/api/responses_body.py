"""An answer as OpenAI's response object, whole or as the events of a stream.

Source: https://platform.openai.com/docs/api-reference/responses/object and /responses-streaming.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fulmen_serving.api.answer_body import failure_of
from fulmen_serving.api.responses_request import ResponsesRequest
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.service import Answer, ServedModel

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseWriter:
    """Writes one answer as one response.

    Args:
        answer: from the service.
        asked: what is echoed.
        model: what is served.
    """

    def __init__(self, answer: Answer, asked: ResponsesRequest, model: ServedModel) -> None:
        self._answer, self._asked, self._model = answer, asked, model
        self._created = int(time.time())
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._next = 0

    async def collect(self) -> dict[str, Any]:
        """Wait for the whole answer and return its response.

        Raises:
            Refusal: 500 if it failed.
        """
        pieces: list[str] = []
        async for _, event in self._answer:
            match event:
                case TextDelta(text):
                    pieces.append(text)
                case AnswerFailure():
                    raise failure_of(event)
                case AnswerEnd():
                    pass
        return self._ended("".join(pieces), self._answer.ends[0])

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events, numbered from 0; the last one holds the whole response."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        pieces: list[str] = []
        async for _, event in self._answer:
            match event:
                case TextDelta(text):
                    if not pieces:
                        item = self._item("in_progress", [])
                        yield self._event("response.output_item.added", output_index=0, item=item)
                        yield self._event("response.content_part.added", **place, part=_part(""))
                    pieces.append(text)
                    yield self._event("response.output_text.delta", **place, delta=text, logprobs=[])
                case AnswerEnd():
                    text = "".join(pieces)
                    response = self._ended(text, event)
                    if pieces:
                        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
                        yield self._event("response.content_part.done", **place, part=_part(text))
                        item = response["output"][0]
                        yield self._event("response.output_item.done", output_index=0, item=item)
                    yield self._event(f"response.{response['status']}", response=response)
                case AnswerFailure():
                    error = {"code": "server_error", "message": event.message}
                    yield self._event("response.failed", response=self._response("failed") | {"error": error})

    def _ended(self, text: str, end: AnswerEnd) -> dict[str, Any]:
        reason = _INCOMPLETE.get(end.reason)
        status = "completed" if reason is None else "incomplete"
        prompt, completion = self._answer.prompt_tokens, end.completion_tokens
        return self._response(status) | {
            "completed_at": int(time.time()) if reason is None else None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": [self._item(status, [_part(text)])] if text else [],
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": end.reused_tokens, "cache_write_tokens": 0},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + completion,
            },
        }

    def _response(self, status: str) -> dict[str, Any]:
        asked, model = self._asked, self._model
        return {
            "id": self._answer.request_id,
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": model.name,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": model.temperature if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": model.top_p if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._next} | fields
        self._next += 1
        return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
