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

from fulmen_serving.api.answer_request import AnswerRequest
from fulmen_serving.api.strict_request import StreamOptions, StrictModel, validate, without_neutral
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal

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
        "additionalProperties": False,
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


class ChatCompletionRequest(AnswerRequest):
    """The body of a request for a chat completion."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    # They name the user or a cache line; an answer does not depend on them.
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def token_limit(self) -> int | None:
        """The newer name's value, else the older's."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def start(self) -> ChatPrompt:
        """What the model goes on from."""
        return ChatPrompt(tuple(message.model_dump() for message in self.messages))


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
    request.check_stream_options()
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
