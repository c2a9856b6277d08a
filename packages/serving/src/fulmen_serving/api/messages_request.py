"""The bodies of ``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's conversation, in strict form.

Source: https://docs.claude.com/en/api/messages and /messages-count-tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.api.messages_blocks import (
    AnthropicMessage,
    CacheControl,
    TextBlock,
    TextBlocks,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    joined,
    text_of,
    turns_of,
)
from fulmen_serving.api.messages_tools import (
    AnthropicTool,
    AnthropicToolChoice,
    AnthropicTools,
    JsonOutputFormat,
    OutputConfig,
    choice_of,
    functions_of,
    shown,
)
from fulmen_serving.api.strict_request import M, StrictModel, fields_of, validate, without_neutral
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal

#: Anthropic's fields that are not supported, and the values (beside null) with which they ask for nothing. A model that
#: reasons does so of itself, which is what "adaptive" says.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "container": (),
    "context_management": ({},),
    "diagnostics": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "thinking": ({"type": "disabled"}, {"type": "adaptive"}),
    "user_profile_id": (),
}
MAX_STOP_SEQUENCES = 16


StopSequences = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOP_SEQUENCES)]


class MessagesMetadata(StrictModel):
    """Names the user; an answer does not depend on it."""

    user_id: str | None = None


class CountTokensRequest(StrictModel):
    """The body of a request for the length of a prompt."""

    model: str
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: TextBlocks | None = None
    tools: AnthropicTools | None = None
    tool_choice: AnthropicToolChoice | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None

    @property
    def start(self) -> MessagesPrompt:
        """What the model goes on from. Tools that it may not call are not shown to it.

        Raises:
            Refusal: 400, the blocks of the conversation do not belong together.
        """
        system = [{"role": "system", "content": text_of(self.system)}] if self.system else []
        told = [] if self.tool_choice is not None and self.tool_choice.type == "none" else self.tools or []
        return MessagesPrompt(tuple(joined([*system, *turns_of(self.messages)])), shown(told))

    def check(self) -> None:
        """Refuse what one field alone does not show.

        Raises:
            Refusal: 400.
        """
        if self.messages[-1].role == "assistant":
            raise Refusal(
                400,
                "The last message is the assistant's, and this server does not continue a message that was begun "
                "(prefill); end with a message of the user",
                code="unsupported_parameter",
                param="messages",
            )
        choice = self.tool_choice
        if choice is not None and (choice.type == "tool") != (choice.name is not None):
            raise Refusal(
                400, "'tool_choice.name' belongs to the type 'tool'", code="invalid_value", param="tool_choice.name"
            )
        choice_of(choice).rule(functions_of(self.tools or []))


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
            shape=None if self.output_config is None else self.output_config.shape,
            calls=choice_of(self.tool_choice).rule(functions_of(self.tools or [])),
        )


@dataclass(frozen=True, slots=True)
class MessagesPrompt(ChatPrompt):
    """A conversation that came in Anthropic's form."""

    id_prefix: ClassVar[str] = "msg_"


def parse_messages_request(body: Mapping[str, Any], *, reasons: bool) -> MessagesRequest:
    """Check a parsed body.

    Args:
        body: the body.
        reasons: whether the model begins its answers with reasoning, which cannot be disabled.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    if reasons and body.get("thinking") == {"type": "disabled"}:
        raise Refusal(
            400,
            "'thinking' cannot be disabled: this model begins its answers with reasoning",
            code="unsupported_parameter",
            param="thinking",
        )
    return _parse(MessagesRequest, body)


def parse_count_tokens_request(body: Mapping[str, Any]) -> CountTokensRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    return _parse(CountTokensRequest, body)


def _parse(model: type[M], body: Mapping[str, Any]) -> M:
    asked = validate(model, without_neutral(body, UNSUPPORTED), fields_of(model, _NESTED, {"": UNSUPPORTED}))
    if isinstance(asked, CountTokensRequest):
        asked.check()
    return asked


#: The models of nested objects, by the names that lead to them.
_NESTED: Mapping[str, type[StrictModel]] = {
    "messages": AnthropicMessage,
    "system": TextBlock,
    "content": TextBlock,
    "<text>": TextBlock,
    "<thinking>": ThinkingBlock,
    "<tool_use>": ToolUseBlock,
    "<tool_result>": ToolResultBlock,
    "cache_control": CacheControl,
    "metadata": MessagesMetadata,
    "tools": AnthropicTool,
    "tool_choice": AnthropicToolChoice,
    "output_config": OutputConfig,
    "format": JsonOutputFormat,
}
