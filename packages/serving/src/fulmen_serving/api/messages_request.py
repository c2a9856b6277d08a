"""The bodies of ``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's conversation, in strict form.

Source: https://docs.claude.com/en/api/messages and /messages-count-tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import FieldsAt, M, StrictModel, validate, without_neutral
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import AnswerOptions

#: Anthropic's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "container": (),
    "context_management": ({},),
    "diagnostics": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "output_config": ({},),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "thinking": ({"type": "disabled"},),
    "tool_choice": ({"type": "auto"}, {"type": "none"}),
    "tools": ([],),
    "user_profile_id": (),
}
MAX_STOP_SEQUENCES = 16


class CacheControl(StrictModel):
    """Where a client would have a prefix kept. An answer does not depend on it."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(StrictModel):
    """A block of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None  # of an answer that is sent back


def _blocks_of(content: object) -> object:
    """A text as its only block. Blocks of other types are refused by their type."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        for index, block in enumerate(content):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind != "text":
                raise PydanticCustomError(
                    "content_block", f"block {index} is of type {kind!r}; only 'text' is supported by this server"
                )
    return content


StopSequences = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOP_SEQUENCES)]
Blocks = Annotated[list[TextBlock], BeforeValidator(_blocks_of, json_schema_input_type=str | list[TextBlock])]


class AnthropicMessage(StrictModel):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class MessagesMetadata(StrictModel):
    """Names the user; an answer does not depend on it."""

    user_id: str | None = None


class CountTokensRequest(StrictModel):
    """The body of a request for the length of a prompt."""

    model: str
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: Blocks | None = None
    cache_control: CacheControl | None = None

    @property
    def start(self) -> MessagesPrompt:
        """What the model goes on from. Turns of one role that follow each other are one, on lines of their own."""
        turns = [("system", _text(self.system))] if self.system else []
        turns += [(message.role, _text(message.content)) for message in self.messages]
        conversation: list[dict[str, str]] = []
        for role, content in turns:
            if conversation and conversation[-1]["role"] == role:
                conversation[-1]["content"] += "\n" + content
            else:
                conversation.append({"role": role, "content": content})
        return MessagesPrompt(tuple(conversation))


class MessagesRequest(CountTokensRequest):
    """The body of a request for an answer."""

    max_tokens: int = Field(ge=1)
    stop_sequences: StopSequences | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: MessagesMetadata | None = None
    stream: bool | None = None

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service."""
        return AnswerOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k or 0,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences or ()),
        )


@dataclass(frozen=True, slots=True)
class MessagesPrompt(ChatPrompt):
    """A conversation that came in Anthropic's form."""

    id_prefix: ClassVar[str] = "msg_"


def parse_messages_request(body: Mapping[str, Any]) -> MessagesRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    return _parse(MessagesRequest, body)


def parse_count_tokens_request(body: Mapping[str, Any]) -> CountTokensRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    return _parse(CountTokensRequest, body)


def _parse(model: type[M], body: Mapping[str, Any]) -> M:
    asked = validate(model, without_neutral(body, UNSUPPORTED), _fields_of(model))
    if isinstance(asked, CountTokensRequest) and asked.messages[-1].role == "assistant":
        raise Refusal(
            400,
            "The last message is the assistant's, and this server does not continue a message that was begun "
            "(prefill); end with a message of the user",
            code="unsupported_parameter",
            param="messages",
        )
    return asked


def _fields_of(model: type[StrictModel]) -> FieldsAt:
    def fields_at(path: list[int | str]) -> set[str]:
        if not path:
            return set(model.model_fields) | set(UNSUPPORTED)
        if path[-1] == "cache_control":
            return set(CacheControl.model_fields)
        if path[0] == "metadata":
            return set(MessagesMetadata.model_fields)
        in_block = path[0] == "system" or "content" in path
        return set(TextBlock.model_fields if in_block else AnthropicMessage.model_fields)

    return fields_at


def _text(blocks: Iterable[TextBlock]) -> str:
    return "".join(block.text for block in blocks)
