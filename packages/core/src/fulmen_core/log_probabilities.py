"""How likely the model held a token, and which it held likelier: the numbers behind an API's `logprobs`.

Of the model's own distribution: before temperature, penalties, biases, top-k, top-p and constraints.
Legend: V vocabulary, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LogProbability:
    """The natural logarithm of a token's probability."""

    token: int
    log_probability: float


@dataclass(frozen=True, slots=True)
class TokenLogProbabilities:
    """Of the token that was taken, and of the likeliest at its place, likeliest first (the lower id among equals)."""

    taken: LogProbability
    likeliest: tuple[LogProbability, ...]


def log_probabilities(logits_V: NDArray[np.float32], taken: int, top: int) -> TokenLogProbabilities:
    """Return the log probabilities of `taken` and of the `top` likeliest tokens, in float64.

    Args:
        logits_V: float32 ``[V]``, finite or minus infinity, not all of them the latter.
        taken: the token that was sampled.
        top: how many of the likeliest; at most V are given.
    """
    logits64_V = logits_V.astype(np.float64)
    highest = logits64_V.max()
    log_normaliser = highest + np.log(np.exp(logits64_V - highest).sum())

    def of(token: int) -> LogProbability:
        return LogProbability(token, float(logits64_V[token] - log_normaliser))

    return TokenLogProbabilities(of(taken), tuple(of(int(token)) for token in _likeliest(logits_V, top)))


def _likeliest(logits_V: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    count = min(count, len(logits_V))
    if count == 0:
        return np.empty(0, np.intp)
    border = np.partition(logits_V, len(logits_V) - count)[len(logits_V) - count]
    ids_C = np.flatnonzero(logits_V >= border)
    likeliest_C: NDArray[np.intp] = ids_C[np.argsort(-logits_V[ids_C], kind="stable")][:count]
    return likeliest_C
