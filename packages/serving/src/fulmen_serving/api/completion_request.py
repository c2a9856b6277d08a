"""The body of ``POST /v1/completions``: a text or token ids to continue.

Source: https://platform.openai.com/docs/api-reference/completions/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_serving.api.answer_request import AnswerRequest
from fulmen_serving.api.answer_shape import StructuredOutputs
from fulmen_serving.api.strict_request import StreamOptions, fields_of, validate, without_neutral
from fulmen_serving.prompt import Prompt, TextPrompt, TokenPrompt
from fulmen_serving.refusal import Refusal

#: What a completion gets that does not say: OpenAI's default of this route.
DEFAULT_MAX_TOKENS = 16

#: OpenAI's fields that are not supported, and the values (beside null) with which they ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
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


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


class CompletionRequest(AnswerRequest):
    """The body of a request for a completion."""

    prompt: Annotated[
        str | tuple[int, ...], BeforeValidator(_prompt_of), WithJsonSchema({"anyOf": [{"type": "string"}, _IDS]})
    ]
    best_of: int | None = Field(None, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)

    @property
    def token_limit(self) -> int | None:
        """OpenAI's default of this route where nothing is said."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def told_logprobs(self) -> int | None:
        """As many as `logprobs` says."""
        return self.logprobs

    @property
    def start(self) -> Prompt:
        """What the model continues."""
        return TextPrompt(self.prompt) if isinstance(self.prompt, str) else TokenPrompt(self.prompt)


def parse_completion_request(body: Mapping[str, Any]) -> CompletionRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    request = validate(CompletionRequest, without_neutral(body, UNSUPPORTED), _FIELDS_AT)
    request.check_stream_options()
    if request.best_of is not None and request.best_of != request.choices:
        raise Refusal(
            400,
            "'best_of' other than 'n' is not supported by this server",
            code="unsupported_parameter",
            param="best_of",
        )
    return request


_FIELDS_AT = fields_of(
    CompletionRequest,
    {"structured_outputs": StructuredOutputs, "stream_options": StreamOptions},
    {"": UNSUPPORTED},
)
