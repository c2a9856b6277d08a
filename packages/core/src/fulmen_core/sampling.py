"""Choosing the next token from logits: greedy, temperature, top-k, top-p. NumPy only, so every backend shares it.

Legend: V vocabulary, C candidates kept. A `Sampler` belongs to one request and owns its random numbers, so what a
request draws does not depend on which other requests share its batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_core.token_constraint import TokenConstraint

#: Top-p sorts this many of the likeliest tokens first, and the whole vocabulary only if they hold too little
#: probability.
_FIRST_CANDIDATES = 1024


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
    """Draws the tokens of one request.

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
        self._penalises = params.presence_penalty != 0 or params.frequency_penalty != 0
        self._counts: Counter[int] = Counter()  # of the tokens drawn, kept if they are penalised
        self._random = np.random.default_rng(np.random.SeedSequence(entropy))

    def sample(self, logits_V: NDArray[np.float32], constraint: TokenConstraint | None = None) -> int:
        """Return the chosen token id: one that `constraint` allows now, as if the others had no probability.

        Raises:
            UserError: the logits hold NaN, or no finite value at all: the weights are damaged or have diverged; or
                the constraint cannot go on.
        """
        if self._penalises or self.params.logit_bias:
            logits_V = self._adjusted(logits_V)
        token = self._choose(logits_V) if constraint is None else self._choose_allowed(logits_V, constraint)
        if self._penalises:
            self._counts[token] += 1
        return token

    def _choose_allowed(self, logits_V: NDArray[np.float32], constraint: TokenConstraint) -> int:
        """Draw first and ask then: most draws are allowed, and one question is cheaper than the mask.

        What is refused is drawn again among the allowed tokens, which leaves each the probability that it has among
        them. Not so where top-k or top-p cut: there the mask comes first.
        """
        params = self.params
        if params.temperature == 0 or (params.top_p == 1 and not params.top_k):
            token = self._choose(logits_V)
            if constraint.allows(token):
                return token
        return self._choose(np.where(constraint.allowed(len(logits_V)), logits_V, np.float32(-np.inf)))

    def _adjusted(self, logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
        params, adjusted_V = self.params, logits_V.copy()
        for token, bias in params.logit_bias:
            adjusted_V[token] += bias
        for token, count in self._counts.items():
            adjusted_V[token] -= params.presence_penalty + count * params.frequency_penalty
        return adjusted_V

    def _choose(self, logits_V: NDArray[np.float32]) -> int:
        top = float(logits_V.max())
        if not math.isfinite(top):
            raise UserError(
                "the model's logits are not finite",
                remedy="its weights are damaged or diverged; take an older checkpoint",
            )
        if self.params.temperature == 0:
            return int(logits_V.argmax())
        # float64 keeps the cumulative sums of 100,000 small probabilities exact enough to invert. A tiny temperature
        # may take the difference to minus infinity, whose weight is the right one: zero.
        with np.errstate(over="ignore"):
            weights_V = np.exp((logits_V.astype(np.float64) - top) / self.params.temperature)
        ids_C, weights_C = self._candidates(weights_V)
        cumulative_C = np.cumsum(weights_C)
        drawn = self._random.random() * cumulative_C[-1]
        # "right" skips tokens of weight zero: their cumulative sum equals their predecessor's
        place = min(int(np.searchsorted(cumulative_C, drawn, side="right")), len(cumulative_C) - 1)
        return place if ids_C is None else int(ids_C[place])

    def _candidates(self, weights_V: NDArray[np.float64]) -> tuple[NDArray[np.intp] | None, NDArray[np.float64]]:
        """Return the ids that top-k and top-p keep, None for all, with their weights (not normalised)."""
        size = len(weights_V)
        top_k = min(self.params.top_k or size, size)
        top_p = self.params.top_p
        if top_k == size and top_p == 1:
            return None, weights_V
        if top_k == size:
            total = float(weights_V.sum())
            ids_C = _likeliest(weights_V, min(_FIRST_CANDIDATES, size))
            if weights_V[ids_C].sum() < top_p * total:
                ids_C = _likeliest(weights_V, size)
        else:
            ids_C = _likeliest(weights_V, top_k)
            total = float(weights_V[ids_C].sum())
        weights_C = weights_V[ids_C]
        if top_p < 1:
            before_C = np.cumsum(weights_C) - weights_C
            kept = max(1, int(np.count_nonzero(before_C < top_p * total)))
            ids_C, weights_C = ids_C[:kept], weights_C[:kept]
        return ids_C, weights_C


def _likeliest(weights_V: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the ids of the `count` largest weights, largest first, the lower id first among equals."""
    if count < len(weights_V):
        # argpartition breaks ties at the border by chance of layout; taking every token above the border and then the
        # lowest ids on it makes the choice a function of the logits alone.
        border = np.partition(weights_V, len(weights_V) - count)[len(weights_V) - count]
        above = np.flatnonzero(weights_V > border)
        ids = np.concatenate([above, np.flatnonzero(weights_V == border)[: count - len(above)]])
    else:
        ids = np.arange(len(weights_V))
    return ids[np.argsort(-weights_V[ids], kind="stable")]


def sample_batch(
    samplers: Sequence[Sampler],
    logits_SV: NDArray[np.float32],
    constraints: Sequence[TokenConstraint | None] | None = None,
) -> list[int | UserError]:
    """Draw for many sequences at once: what `Sampler.sample` gives for each alone, or the error that it raises.

    Args:
        samplers: one for each row, S.
        logits_SV: float32 ``[S, V]``.
        constraints: one for each row or None; None constrains none.
    """
    drawn: list[int | UserError] = []
    for index, sampler in enumerate(samplers):
        try:
            drawn.append(sampler.sample(logits_SV[index], None if constraints is None else constraints[index]))
        except UserError as error:
            drawn.append(error)
    return drawn
