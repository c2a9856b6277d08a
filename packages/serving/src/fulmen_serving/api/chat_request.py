"""The body of ``POST /v1/chat/completions``: what is understood, and a refusal by name for everything else.

Unsupported fields that clients send with a neutral value (``functions: []``, ``store: false``) are accepted with that
value only: a parameter is honoured or refused, never ignored.
Source: https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.api.answer_request import AnswerRequest
from fulmen_serving.api.answer_shape import JsonSchemaFormat, ResponseFormat, StructuredOutputs, shape_of
from fulmen_serving.api.strict_request import StreamOptions, StrictModel, fields_of, validate, without_neutral
from fulmen_serving.api.tool_request import (
    FunctionDefinition,
    MessageToolCall,
    ToolChoice,
    ToolDefinition,
    call_rule,
)
from fulmen_serving.grammar.shape import AnswerShape
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal

#: OpenAI's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
UNSUPPORTED_IN_MESSAGES: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
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
    """One turn of a conversation.

    Attributes:
        content: may be missing where an assistant's turn calls tools.
        reasoning_content: of an assistant, as it was answered.
        tool_calls: of an assistant, as they were answered.
        tool_call_id: of a tool: the call that `content` is the result of.
    """

    role: Annotated[
        Literal["system", "user", "assistant", "tool"],
        BeforeValidator(_role_of),
        WithJsonSchema({"enum": ["system", "developer", "user", "assistant", "tool"]}),
    ]
    content: Annotated[
        str | None,
        BeforeValidator(_text_of),
        WithJsonSchema({"anyOf": [{"type": "string"}, _TEXT_PARTS, {"type": "null"}]}),
    ] = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None

    def turn(self) -> dict[str, Any]:
        """What a chat template reads of it."""
        return {"content": "", **self.model_dump(exclude_none=True)}


class ChatCompletionRequest(AnswerRequest):
    """The body of a request for a chat completion."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    server_tools: list[str] | None = Field(None, max_length=64)  # ours: names of tools that the server runs
    # They name the user or a cache line; an answer does not depend on them.
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def token_limit(self) -> int | None:
        """The newer name's value, else the older's."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def shape(self) -> AnswerShape | None:
        """What the answer must be: see `shape_of`."""
        return shape_of(self.response_format, self.structured_outputs)

    @property
    def told_logprobs(self) -> int | None:
        """As many as `top_logprobs` says, if `logprobs` asks for them at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service, calls of tools with it."""
        parallel = self.parallel_tool_calls is not False
        return replace(super().options, calls=call_rule(self.tools or [], self.tool_choice, parallel=parallel))

    @property
    def start(self) -> ChatPrompt:
        """What the model goes on from. Functions that it may not call are not shown to it."""
        shown = [] if self.tool_choice == "none" else self.tools or []
        tools = tuple(tool.model_dump(exclude_none=True) for tool in shown)
        return ChatPrompt(tuple(message.turn() for message in self.messages), tools)

    def with_tools(self, definitions: Sequence[Mapping[str, Any]]) -> ChatCompletionRequest:
        """The request with the server's tools in place of the client's, of which it then has none."""
        return self.model_copy(update={"tools": [ToolDefinition.model_validate(one) for one in definitions]})


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
    request = validate(ChatCompletionRequest, fields, _FIELDS_AT)
    request.check_stream_options()
    check_turns(request.messages)
    if request.server_tools and request.choices > 1:
        raise Refusal(400, "'server_tools' gives one answer, so 'n' must be 1", code="invalid_value", param="n")
    if request.server_tools and request.tools:
        raise Refusal(
            400,
            "'tools' are the client's to run and 'server_tools' the server's; a request may have one or the other",
            code="invalid_value",
            param="server_tools",
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise Refusal(400, "'top_logprobs' needs 'logprobs': true", code="invalid_value", param="top_logprobs")
    if (
        None not in (request.max_tokens, request.max_completion_tokens)
        and request.max_tokens != request.max_completion_tokens
    ):
        raise Refusal(
            400, "'max_tokens' and 'max_completion_tokens' differ; give one", code="invalid_value", param="max_tokens"
        )
    return request


def check_turns(messages: Sequence[ChatMessage]) -> None:
    """Refuse a conversation in which a message lacks what its role needs, or has what only another role has.

    Raises:
        Refusal: 400, naming the message.
    """
    called: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        assistant = message.role == "assistant"
        for name in ("tool_calls", "reasoning_content"):
            if getattr(message, name) and not assistant:
                raise _wrong(f"{where}.{name}", "only an assistant's message has it")
        if message.content is None and not message.tool_calls and "content" in message.model_fields_set:
            raise _wrong(f"{where}.content", "it must be a string; an assistant's that calls tools may be null")
        if message.content is None and not message.tool_calls:
            raise Refusal(
                400,
                f"Missing required parameter: '{where}.content'",
                code="missing_required_parameter",
                param=f"{where}.content",
            )
        called |= {call.id for call in message.tool_calls or ()}
        if (message.role == "tool") != (message.tool_call_id is not None):
            raise _wrong(f"{where}.tool_call_id", "a tool's message has it, and no other")
        if message.tool_call_id is not None and message.tool_call_id not in called:
            raise _wrong(f"{where}.tool_call_id", f"no message before has a call '{message.tool_call_id}'")


def _wrong(field: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid '{field}': {message}", code="invalid_value", param=field)


#: The models of nested objects, by the names that lead to them.
_NESTED: Mapping[str, type[StrictModel]] = {
    "messages": ChatMessage,
    "tool_calls": MessageToolCall,
    "response_format": ResponseFormat,
    "json_schema": JsonSchemaFormat,
    "structured_outputs": StructuredOutputs,
    "tools": ToolDefinition,
    "function": FunctionDefinition,
    "stream_options": StreamOptions,
}
_FIELDS_AT = fields_of(ChatCompletionRequest, _NESTED, {"": UNSUPPORTED, "messages": UNSUPPORTED_IN_MESSAGES})
