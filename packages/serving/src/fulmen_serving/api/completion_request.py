"""The body of ``POST /v1/completions``: a text or token ids to continue.

Source: https://platform.openai.com/docs/api-reference/completions/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

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
from fulmen_serving.prompt import Prompt, TextPrompt, TokenPrompt
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import AnswerOptions

#: What a completion gets that does not say: OpenAI's default of this route.
DEFAULT_MAX_TOKENS = 16

#: OpenAI's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "logprobs": (),
    "suffix": ("",),
}


def _prompt_of(prompt: object) -> object:
    """A text, or the ids as a tuple; clients also send either as the only one of a list."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise PydanticCustomError("prompt", "a request has one prompt; send the others as requests of their own")
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        return tuple(prompt)
    raise PydanticCustomError("prompt", "it must be a text or a list of token ids")


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}


class CompletionRequest(StrictModel):
    """The body of a request for a completion."""

    model: str
    prompt: Annotated[
        str | tuple[int, ...], BeforeValidator(_prompt_of), WithJsonSchema({"anyOf": [{"type": "string"}, _IDS]})
    ]
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: Stops = Field(default=[])
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1)
    best_of: int | None = Field(None, ge=1)
    logit_bias: LogitBias | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # names the user; an answer does not depend on it

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service."""
        return AnswerOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens,
            seed=self.seed,
            stop=tuple(self.stop),
            choices=self.n or 1,
            logit_bias=tuple((self.logit_bias or {}).items()),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
        )

    @property
    def start(self) -> Prompt:
        """What the model continues."""
        return TextPrompt(self.prompt) if isinstance(self.prompt, str) else TokenPrompt(self.prompt)


def parse_completion_request(body: Mapping[str, Any]) -> CompletionRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    request = validate(CompletionRequest, without_neutral(body, UNSUPPORTED), _fields_at)
    check_stream_options(request.stream_options, request.stream)
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise Refusal(
            400,
            "'best_of' other than 'n' is not supported by this server",
            code="unsupported_parameter",
            param="best_of",
        )
    return request


def _fields_at(path: list[int | str]) -> set[str]:
    return set(StreamOptions.model_fields) if path else set(CompletionRequest.model_fields) | set(UNSUPPORTED)
