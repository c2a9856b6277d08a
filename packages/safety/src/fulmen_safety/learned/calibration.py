"""Margins of a model made into probabilities, one curve per language (Platt 1999), with what the data left open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fulmen_safety.logistic import fit_logistic
from fulmen_safety.settings import Table

#: Of the slope, lest margins that do not overlap make it infinite.
_PENALTY = 5e-5


class Curve(Table):
    """``p = sigmoid(slope * margin + offset)``.

    Args:
        slope_interval, offset_interval: 95 % bootstrap intervals over groups of alike texts.
        examples: texts that the curve was fitted to.
    """

    slope: float
    offset: float
    slope_interval: tuple[float, float]
    offset_interval: tuple[float, float]
    examples: int

    def probability(self, margin: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each margin, float64 of the same shape."""
        logit = np.clip(self.slope * np.asarray(margin, np.float64) + self.offset, -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))


@dataclass(frozen=True, slots=True)
class _Fit:
    slope: float
    offset: float


def fitted(
    margins: NDArray[np.float64],
    unsafe: NDArray[np.bool_],
    groups: NDArray[np.int64],
    *,
    seed: int,
    draws: int = 100,
) -> Curve:
    """Fit a curve in which unsafe and safe texts weigh the same, whatever their share of the data.

    Args:
        margins: [N], of texts that the model was not trained on.
        unsafe: [N] bool, both values present.
        groups: [N], drawn as a whole in the bootstrap.
    """
    best = _fit(margins, unsafe, np.ones(len(margins)))
    random = np.random.default_rng(seed)
    members, place = np.unique(groups, return_inverse=True)
    drawn = []
    for _ in range(draws):
        times = np.bincount(random.integers(0, len(members), len(members)), minlength=len(members))[place]
        if times[unsafe].sum() and times[~unsafe].sum():
            drawn.append(_fit(margins, unsafe, times.astype(np.float64)))
    slopes = _interval([one.slope for one in drawn] or [best.slope])
    offsets = _interval([one.offset for one in drawn] or [best.offset])
    return Curve(
        slope=round(best.slope, 6),
        offset=round(best.offset, 6),
        slope_interval=slopes,
        offset_interval=offsets,
        examples=len(margins),
    )


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return round(float(low), 6), round(float(high), 6)


def _fit(margins: NDArray[np.float64], unsafe: NDArray[np.bool_], times: NDArray[np.float64]) -> _Fit:
    """Return the curve of margins that count so many times each, its slope kept above 0."""
    scale = float(np.std(margins)) or 1.0
    weights, offset = fit_logistic(margins[:, None] / scale, unsafe, _PENALTY, times)
    return _Fit(max(float(weights[0]), 1e-3) / scale, offset)
