"""An answer as OpenAI's response object, whole or as the events of a stream: each segment is an item.

Source: https://platform.openai.com/docs/api-reference/responses/object and /responses-streaming.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fulmen_core.tokenizer import Tokenizer
from fulmen_serving.answer import Answer, guard_state
from fulmen_serving.api.answer_body import failure_of
from fulmen_serving.api.answer_segments import Segment, SegmentEvent, Segments
from fulmen_serving.api.responses_request import ResponsesRequest
from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure
from fulmen_serving.served_model import ServedModel

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseWriter:
    """Writes one answer as one response.

    Args:
        answer: from the service.
        asked: what is echoed.
        model: what is served.
        tokenizer: counts the reasoning.
    """

    def __init__(self, answer: Answer, asked: ResponsesRequest, model: ServedModel, tokenizer: Tokenizer) -> None:
        self._answer, self._asked, self._model, self._tokenizer = answer, asked, model, tokenizer
        self._created = int(time.time())
        self._segments = Segments()
        self._next = 0

    async def collect(self) -> dict[str, Any]:
        """Wait for the whole answer and return its response.

        Raises:
            Refusal: 500 if it failed.
        """
        async for _, event in self._answer:
            if isinstance(event, AnswerFailure):
                raise failure_of(event)
            for _ in self._segments.take(event):
                pass
        return self._ended(self._answer.ends[0])

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events, numbered from 0; the last one holds the whole response."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        async for _, event in self._answer:
            if isinstance(event, AnswerFailure):
                error = {"code": "server_error", "message": event.message}
                yield self._event("response.failed", response=self._response("failed") | {"error": error})
                return
            for change in self._segments.take(event):
                for line in self._changed(change, "completed"):
                    yield line
            if isinstance(event, AnswerEnd):
                response = self._ended(event)
                for change in self._segments.finish():
                    for line in self._changed(change, response["status"]):
                        yield line
                yield self._event(f"response.{response['status']}", response=response)

    def _changed(self, change: SegmentEvent, status: str) -> Iterator[bytes]:
        what, segment, piece = change
        place: dict[str, Any] = {"item_id": _item_id(segment), "output_index": segment.index}
        call = segment.kind == "call"
        kind = {"said": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}[segment.kind]
        probabilities: dict[str, Any] = {"logprobs": []} if segment.kind == "said" else {}
        inside = place if call else place | {"content_index": 0}
        if what == "opened":
            item = _item(segment, "in_progress", begun=True)
            yield self._event("response.output_item.added", output_index=segment.index, item=item)
            if not call:
                yield self._event("response.content_part.added", **inside, part=_part(segment, ""))
        elif what == "grew":
            yield self._event(f"response.{kind}.delta", **inside, delta=piece, **probabilities)
        else:
            whole = {"arguments": segment.text, "name": segment.name} if call else {"text": segment.text}
            yield self._event(f"response.{kind}.done", **inside, **whole, **probabilities)
            if not call:
                yield self._event("response.content_part.done", **inside, part=_part(segment, segment.text))
            item = _item(segment, status)
            yield self._event("response.output_item.done", output_index=segment.index, item=item)

    def _ended(self, end: AnswerEnd) -> dict[str, Any]:
        reason = _INCOMPLETE.get(end.reason)
        status = "completed" if reason is None else "incomplete"
        prompt, completion = self._answer.prompt_tokens, end.completion_tokens
        reasoning = "".join(segment.text for segment in self._segments.all if segment.kind == "reasoning")
        segments = self._segments.all
        last = len(segments) - 1
        output = [_item(segment, status if segment.index == last else "completed") for segment in segments]
        told = self._response(status) | guard_state(end)
        return told | {
            "completed_at": int(time.time()) if reason is None else None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": output,
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": end.reused_tokens, "cache_write_tokens": 0},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": len(self._tokenizer.encode(reasoning))},
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
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": model.temperature if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}} | _told(asked.text),
            "tool_choice": _told(asked.tool_choice) or asked.tool_choice or "auto",
            "tools": [_told(tool) | {"strict": bool(tool.strict)} for tool in asked.tools or ()],
            "top_p": model.top_p if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._next} | fields
        self._next += 1
        return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _item_id(segment: Segment) -> str:
    return {"said": "msg_", "reasoning": "rs_", "call": "fc_"}[segment.kind] + segment.key


def _item(segment: Segment, status: str, *, begun: bool = False) -> dict[str, Any]:
    item: dict[str, Any] = {"id": _item_id(segment), "status": status}
    content = [] if begun else [_part(segment, segment.text)]
    match segment.kind:
        case "said":
            return item | {"type": "message", "role": "assistant", "content": content}
        case "reasoning":
            return item | {"type": "reasoning", "summary": [], "content": content}
        case "call":
            call = {"type": "function_call", "call_id": f"call_{segment.key}", "name": segment.name}
            return item | call | {"arguments": "" if begun else segment.text}


def _part(segment: Segment, text: str) -> dict[str, Any]:
    if segment.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _told(given: object) -> dict[str, Any]:
    """An object of the request as it came, without what it left out."""
    told: dict[str, Any] = given.model_dump(by_alias=True, exclude_none=True) if isinstance(given, StrictModel) else {}
    return told
