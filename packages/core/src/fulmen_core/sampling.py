"""Choosing the next token from logits: greedy, temperature, top-k, top-p. NumPy only, so every backend shares it.

Legend: S sequences, V vocabulary. A `Sampler` belongs to one request and owns its random numbers, so what a
request draws does not depend on which other requests share its batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_core.draws import Draws
from fulmen_core.errors import UserError
from fulmen_core.softmax_draw import Draw, draw_from_likeliest, draw_tokens
from fulmen_core.token_constraint import TokenConstraint


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens, with the meanings of the OpenAI API. Values out of range raise `UserError`.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token (the lowest id among equals).
        top_p: keep the smallest set of likeliest tokens with at least this probability, in (0, 1].
        top_k: keep this many likeliest tokens; 0 keeps all. Applied before `top_p`.
        max_tokens: at most this many new tokens.
        seed: makes the draws repeatable; None takes fresh entropy.
        stop: strings that end the answer. Whoever turns ids into text applies them: sampling sees no text.
        logit_bias: pairs of token id and what is added to its logit; the ids are the caller's to check.
        presence_penalty: taken from the logit of every token that the answer has so far.
        frequency_penalty: taken from it once for each time.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature {self.temperature} is not a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} does not lie in (0, 1]")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} is negative", remedy="0 keeps every token")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens {self.max_tokens} is less than 1")
        biases = (bias for _, bias in self.logit_bias)
        if not all(map(math.isfinite, (self.presence_penalty, self.frequency_penalty, *biases))):
            raise UserError("a penalty or a bias of a logit is not finite")
        if any(not text for text in self.stop):
            raise UserError("an empty stop string would end every answer at once")


class Sampler:
    """How one request's tokens are chosen, its random numbers, and what its answer has so far.

    Args:
        params: how to choose.
        request_seed: used when `params.seed` is None: an int, or ints that are mixed (``(seed, index)``), or None for
            entropy.
    """

    def __init__(self, params: SamplingParams, request_seed: int | Sequence[int] | None = None) -> None:
        self.params = params
        seed = request_seed if params.seed is None else params.seed
        words = [seed] if isinstance(seed, int) else seed
        # SeedSequence wants words that are not negative; OpenAI's seeds may be
        entropy = None if words is None else [word % 2**64 for word in words]
        self.greedy = params.temperature == 0
        self.truncates = not self.greedy and (params.top_k > 0 or params.top_p < 1)
        self._penalises = params.presence_penalty != 0 or params.frequency_penalty != 0
        self.adjusts = self._penalises or bool(params.logit_bias)
        self._counts: Counter[int] = Counter()  # of the tokens drawn, kept if they are penalised
        self._random = Draws(entropy)

    def resume(self, tokens: Sequence[int]) -> None:
        """Take over after `tokens`, which an equal sampler chose: what follows is drawn as if never interrupted.

        Only of a fresh sampler.
        """
        if self._penalises:
            self._counts.update(tokens)
        self._random.skip(len(tokens))

    def sample(
        self, logits_V: NDArray[np.float32], constraint: TokenConstraint | None = None, draw: Draw = draw_tokens
    ) -> int:
        """Return the chosen token id: one that `constraint` allows now, as if the others had no probability.

        Raises:
            UserError: the logits hold NaN, or no finite value at all: the weights are damaged or have diverged; or
                the constraint cannot go on.
        """
        [token] = sample_batch([self], logits_V[None], [constraint], draw)
        if isinstance(token, UserError):
            raise token
        return token

    def uniform(self) -> float:
        """The next of the request's random numbers, in [0, 1). A draw takes one."""
        return float(self._random.random())

    def adjust(self, logits_V: NDArray[np.float32]) -> None:
        """Add the biases to logits, and take the penalties from them, in place."""
        params = self.params
        for token, bias in params.logit_bias:
            logits_V[token] += bias
        for token, count in self._counts.items():
            logits_V[token] -= params.presence_penalty + count * params.frequency_penalty

    def record(self, token: int) -> None:
        """`token` was chosen: the next draw is that of the next place, and what is penalised knows of it."""
        if self._penalises:
            self._counts[token] += 1
        self._random.next_place()


def sample_batch(
    samplers: Sequence[Sampler],
    logits_SV: NDArray[np.float32],
    constraints: Sequence[TokenConstraint | None] | None = None,
    draw: Draw = draw_tokens,
) -> list[int | UserError]:
    """Choose a token for each of many sequences: what `Sampler.sample` gives for each alone, or the error it raises.

    A constraint is asked about a draw from all tokens, because most draws are allowed and one question is cheaper than
    a mask. What it refuses is drawn again among the tokens that it allows, which leaves each of them the probability
    that it has among them. Not so where top-k or top-p cut: there the mask comes first.

    Args:
        samplers: one for each row, S.
        logits_SV: float32 ``[S, V]``.
        constraints: one for each row or None; None constrains none.
        draw: what draws from whole rows; see `draw_of`.
    """
    if any(sampler.adjusts for sampler in samplers):
        logits_SV = logits_SV.copy()
        for sampler, logits_V in zip(samplers, logits_SV, strict=True):
            sampler.adjust(logits_V)
    tokens = _draw(samplers, logits_SV, draw)
    _constrain(samplers, logits_SV, constraints or (), tokens, draw)
    for sampler, token in zip(samplers, tokens, strict=True):
        if not isinstance(token, UserError):
            sampler.record(token)
    return tokens


def _constrain(
    samplers: Sequence[Sampler],
    logits_SV: NDArray[np.float32],
    constraints: Sequence[TokenConstraint | None],
    tokens: list[int | UserError],
    draw: Draw,
) -> None:
    """Put another token, or an error, in place of each of `tokens` that may not be next."""
    rows, masks = [], []
    for row, constraint in enumerate(constraints):
        token = tokens[row]
        if constraint is None or isinstance(token, UserError):
            continue
        try:
            if samplers[row].truncates or not constraint.allows(token):
                masks.append(constraint.allowed(logits_SV.shape[1]))
                rows.append(row)
        except UserError as error:
            tokens[row] = error
    if rows:
        masked_SV = np.full((len(rows), logits_SV.shape[1]), -np.inf, np.float32)
        for masked_V, row, allowed_V in zip(masked_SV, rows, masks, strict=True):
            np.copyto(masked_V, logits_SV[row], where=allowed_V)
        for row, token in zip(rows, _draw([samplers[row] for row in rows], masked_SV, draw), strict=True):
            tokens[row] = token


def _draw(samplers: Sequence[Sampler], logits_SV: NDArray[np.float32], draw: Draw) -> list[int | UserError]:
    """Draw without constraint from logits that are adjusted already."""
    tokens: list[int | UserError] = [_not_finite()] * len(samplers)
    whole = [row for row, sampler in enumerate(samplers) if not sampler.truncates]
    if whole:
        temperature_S = np.array([samplers[row].params.temperature for row in whole])
        uniform_S = np.array([0.0 if samplers[row].greedy else samplers[row].uniform() for row in whole])
        for row, token in zip(whole, draw(_rows(logits_SV, whole), temperature_S, uniform_S).tolist(), strict=True):
            if token >= 0:
                tokens[row] = token
    for row, sampler in enumerate(samplers):
        if sampler.truncates and math.isfinite(logits_SV[row].max()):
            params, uniform = sampler.params, sampler.uniform()
            tokens[row] = draw_from_likeliest(logits_SV[row], params.temperature, params.top_k, params.top_p, uniform)
    return tokens


def _rows(logits_SV: NDArray[np.float32], rows: Sequence[int]) -> NDArray[np.float32]:
    """The rows, without a copy if they are all."""
    return logits_SV if len(rows) == len(logits_SV) else logits_SV[rows]


def _not_finite() -> UserError:
    return UserError(
        "the model's logits are not finite",
        remedy="its weights are damaged or diverged; take an older checkpoint",
    )
