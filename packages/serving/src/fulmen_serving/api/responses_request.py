"""The body of ``POST /v1/responses``: what is understood, and a refusal by name for everything else.

Nothing is stored: a request says so (``store: false``) or nothing, and the response says so too. What needs a store
(``previous_response_id``, ``conversation``, ``background``) is refused.
Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import StrictModel, validate, without_neutral
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import AnswerOptions

#: OpenAI's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background": (False,),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "include": ([],),
    "max_tool_calls": (),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "reasoning": ({}, {"effort": "none"}),
    "service_tier": ("auto", "default"),
    "text": ({}, {"format": {"type": "text"}}, {"format": {"type": "text"}, "verbosity": "medium"}),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
MAX_METADATA = 16


class TextPart(StrictModel):
    """A part of a message: of what is said to the model, or of an answer that is sent back."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


def _parts_of(content: object) -> object:
    """A text as its only part. Parts of other types are refused by their type."""
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if isinstance(content, list):
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("input_text", "output_text"):
                raise PydanticCustomError(
                    "content_part",
                    f"part {index} is of type {kind!r}; only 'input_text' and 'output_text' are supported",
                )
    return content


class MessageItem(StrictModel):
    """A message: of the user, of the system, or an answer that is sent back, with its id and status."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[list[TextPart], BeforeValidator(_parts_of, json_schema_input_type=str | list[TextPart])]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: None = None

    @property
    def turn(self) -> dict[str, str]:
        """The message as the tokenizer and the guard know it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "".join(part.text for part in self.content)}


def _items_of(given: object) -> object:
    """A text as the user's message. Items of other types are refused by their type."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if isinstance(given, list):
        for index, item in enumerate(given):
            kind = item.get("type", "message") if isinstance(item, dict) else None
            if kind != "message":
                raise PydanticCustomError("item", f"item {index} is of type {kind!r}; only 'message' is supported")
    return given


class ResponseStreamOptions(StrictModel):
    """Options of a streamed response."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(StrictModel):
    """The body of a request for a response."""

    model: str
    input: Annotated[
        list[MessageItem],
        Field(min_length=1),
        BeforeValidator(_items_of, json_schema_input_type=str | Annotated[list[MessageItem], Field(min_length=1)]),
    ]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    # They name the user or a cache line; an answer does not depend on them.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service."""
        return AnswerOptions(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_output_tokens)

    @property
    def start(self) -> ResponsesPrompt:
        """What the model goes on from."""
        first = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        return ResponsesPrompt((*first, *(item.turn for item in self.input)))


@dataclass(frozen=True, slots=True)
class ResponsesPrompt(ChatPrompt):
    """A conversation that came as the items of a response."""

    field: ClassVar[str] = "input"
    id_prefix: ClassVar[str] = "resp_"


def parse_responses_request(body: Mapping[str, Any]) -> ResponsesRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    request = validate(ResponsesRequest, without_neutral(body, UNSUPPORTED), _fields_at)
    if request.store:
        raise Refusal(
            400,
            "'store' is not supported by this server, which keeps no responses: leave it out or send false, and send "
            "the whole conversation with each request",
            code="unsupported_parameter",
            param="store",
        )
    if request.stream_options is not None and not request.stream:
        raise Refusal(400, "'stream_options' needs 'stream': true", code="invalid_value", param="stream_options")
    return request


def _fields_at(path: list[int | str]) -> set[str]:
    if not path:
        return set(ResponsesRequest.model_fields) | set(UNSUPPORTED)
    if path[0] == "stream_options":
        return set(ResponseStreamOptions.model_fields)
    return set(TextPart.model_fields if "content" in path else MessageItem.model_fields)
