"""The body of ``POST /v1/chat/completions``: what is understood, and a refusal by name for everything else.

Unsupported fields that clients send with a neutral value (``tools: []``, ``logprobs: false``) are accepted with that
value only: a parameter is honoured or refused, never ignored.
Source: https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import (
    LogitBias,
    Stops,
    StreamOptions,
    StrictModel,
    check_stream_options,
    validate,
    without_neutral,
)
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import AnswerOptions

#: OpenAI's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
UNSUPPORTED_IN_MESSAGES: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}


def _text_of(content: object) -> object:
    """Join text parts. Other parts are refused by their type."""
    if not isinstance(content, list):
        return content
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise PydanticCustomError("content_part", f"part {index} is of type {kind!r}; only 'text' is supported")
        if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
            raise PydanticCustomError("content_part", f"part {index} must have a string 'text' and nothing else")
        texts.append(part["text"])
    return "".join(texts)


def _role_of(role: object) -> object:
    """OpenAI's newer name for the same role."""
    return "system" if role == "developer" else role


_TEXT_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}


class ChatMessage(StrictModel):
    """One turn of a conversation."""

    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(_role_of),
        WithJsonSchema({"enum": ["system", "developer", "user", "assistant"]}),
    ]
    content: Annotated[str, BeforeValidator(_text_of), WithJsonSchema({"anyOf": [{"type": "string"}, _TEXT_PARTS]})]


class ChatCompletionRequest(StrictModel):
    """The body of a request for a chat completion."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: Stops = Field(default=[])
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1)
    logit_bias: LogitBias | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # They name the user or a cache line; an answer does not depend on them.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service."""
        newest = self.max_completion_tokens
        return AnswerOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens if newest is None else newest,
            seed=self.seed,
            stop=tuple(self.stop),
            choices=self.n or 1,
            logit_bias=tuple((self.logit_bias or {}).items()),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
        )


def parse_chat_request(body: Mapping[str, Any]) -> ChatCompletionRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    fields = without_neutral(body, UNSUPPORTED, "")
    messages = fields.get("messages")
    if isinstance(messages, list):
        fields["messages"] = [
            without_neutral(message, UNSUPPORTED_IN_MESSAGES, f"messages[{index}].")
            if isinstance(message, dict)
            else message
            for index, message in enumerate(messages)
        ]
    request = validate(ChatCompletionRequest, fields, _fields_at)
    check_stream_options(request.stream_options, request.stream)
    if (
        None not in (request.max_tokens, request.max_completion_tokens)
        and request.max_tokens != request.max_completion_tokens
    ):
        raise Refusal(
            400, "'max_tokens' and 'max_completion_tokens' differ; give one", code="invalid_value", param="max_tokens"
        )
    return request


def _fields_at(path: list[int | str]) -> set[str]:
    if not path:
        return set(ChatCompletionRequest.model_fields) | set(UNSUPPORTED)
    if path[0] == "messages":
        return set(ChatMessage.model_fields) | set(UNSUPPORTED_IN_MESSAGES)
    return set(StreamOptions.model_fields)
