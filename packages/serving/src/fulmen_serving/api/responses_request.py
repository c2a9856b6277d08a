"""The body of ``POST /v1/responses``: what is understood, and a refusal by name for everything else.

Nothing is stored: a request says so (``store: false``) or nothing, and the response says so too. What needs a store
(``previous_response_id``, ``conversation``, ``background``) is refused.
Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.api.responses_items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Items,
    MessageItem,
    ReasoningItem,
    TextPart,
    turns_of,
)
from fulmen_serving.api.responses_tools import (
    FunctionTool,
    FunctionTools,
    NamedFunction,
    ResponseToolChoice,
    TextConfig,
    TextFormat,
    choice_of,
    functions_of,
    shown,
)
from fulmen_serving.api.strict_request import StrictModel, fields_of, validate, without_neutral
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal

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
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": (),
    "reasoning": ({}, {"effort": "none"}),
    "service_tier": ("auto", "default"),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
MAX_METADATA = 16


class ResponseStreamOptions(StrictModel):
    """Options of a streamed response."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(StrictModel):
    """The body of a request for a response."""

    model: str
    input: Items
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    tools: FunctionTools | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
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
        parallel = self.parallel_tool_calls is not False
        return AnswerOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_output_tokens,
            shape=None if self.text is None else self.text.shape,
            calls=choice_of(self.tool_choice, parallel=parallel).rule(functions_of(self.tools or [])),
        )

    @property
    def start(self) -> ResponsesPrompt:
        """What the model goes on from. Functions that it may not call are not shown to it.

        Raises:
            Refusal: 400, the output of a function answers no call.
        """
        first = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        told = [] if self.tool_choice == "none" else self.tools or []
        return ResponsesPrompt((*first, *turns_of(self.input)), shown(told))


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
    request = validate(ResponsesRequest, without_neutral(body, UNSUPPORTED), _FIELDS_AT)
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


#: The models of nested objects, by the names that lead to them.
_NESTED: Mapping[str, type[StrictModel]] = {
    "<message>": MessageItem,
    "<function_call>": FunctionCallItem,
    "<function_call_output>": FunctionCallOutputItem,
    "<reasoning>": ReasoningItem,
    "content": TextPart,
    "output": TextPart,
    "tools": FunctionTool,
    "<function>": NamedFunction,
    "text": TextConfig,
    "format": TextFormat,
    "stream_options": ResponseStreamOptions,
}
_FIELDS_AT = fields_of(ResponsesRequest, _NESTED, {"": UNSUPPORTED})
