"""How a request wants its answer."""

from __future__ import annotations

from dataclasses import dataclass

from fulmen_serving.grammar.answer_grammar import CallRule
from fulmen_serving.grammar.shape import AnswerShape
from fulmen_serving.served_model import ServedModel


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What a request asks for; None is the model's default, for `max_tokens` all that the context leaves.

    `shape` is what the answer must be, `calls` which tools it may or must call, `logprobs` of how many of the likeliest
    tokens to tell at each place, `model` which of those that are served; None: the one that adapters change.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    shape: AnswerShape | None = None
    calls: CallRule | None = None
    logprobs: int | None = None
    priority: int = 0
    top_k: int = 0
    ignore_eos: bool = False
    model: ServedModel | None = None
