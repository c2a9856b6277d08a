"""What the bodies of chat and text completions share: how the model is to answer, and how the answer is to come.

Source: https://platform.openai.com/docs/api-reference/chat/create and /completions/create.
"""

from __future__ import annotations

from pydantic import Field

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.api.answer_shape import StructuredOutputs, shape_of
from fulmen_serving.api.strict_request import LogitBias, Stops, StreamOptions, StrictModel
from fulmen_serving.grammar.shape import AnswerShape
from fulmen_serving.refusal import Refusal


class AnswerRequest(StrictModel):
    """The fields of every request for an answer."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: Stops = Field(default=[])
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1)
    logit_bias: LogitBias | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: int = Field(0, ge=-1000, le=1000)  # the lower, the sooner; as in vLLM
    ignore_eos: bool = False  # go on to the limit, as in vLLM: for measuring
    explain: bool = False  # say why it waited, what of its prompt was found computed, whether it was preempted
    user: str | None = None  # names the user; an answer does not depend on it

    @property
    def token_limit(self) -> int | None:
        """The most tokens of an answer; None is what fits."""
        return self.max_tokens

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def shape(self) -> AnswerShape | None:
        """What the answer must be.

        Raises:
            Refusal: 400.
        """
        return shape_of(None, self.structured_outputs)

    @property
    def told_logprobs(self) -> int | None:
        """Of how many of the likeliest tokens log probabilities are told; None tells none."""
        return None

    @property
    def options(self) -> AnswerOptions:
        """What it asks of the service."""
        return AnswerOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.token_limit,
            seed=self.seed,
            stop=tuple(self.stop),
            choices=self.choices,
            logit_bias=tuple((self.logit_bias or {}).items()),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            shape=self.shape,
            logprobs=self.told_logprobs,
            priority=self.priority,
            ignore_eos=self.ignore_eos,
        )

    def check_stream_options(self) -> None:
        """Refuse options of a stream that was not asked for.

        Raises:
            Refusal: 400.
        """
        if self.stream_options is not None and not self.stream:
            raise Refusal(400, "'stream_options' needs 'stream': true", code="invalid_value", param="stream_options")
