"""How near a text is to the examples of a category, as a probability.

Of a text count its nearest example of the category and its nearest ordinary text: what is like both is not taken for
the category. The curve is fitted to the examples and to the ordinary texts themselves, each without itself among its
neighbours, so that nothing but example files is needed and no text is its own witness.

Legend: N texts, E examples, O ordinary texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_semantic.examples import Examples
from fulmen_safety.logistic import fit_logistic, sigmoid

Vectors_ND = NDArray[np.float32]

#: Of the two weights, on similarities in -1 to 1: a few examples must not make a step of the curve.
_PENALTY = 1e-3


@dataclass(frozen=True, slots=True)
class Curve:
    """``sigmoid(near * similarity to the category + ordinary * similarity to ordinary texts + offset)``."""

    near: float
    ordinary: float
    offset: float


class Neighbours:
    """The vectors of the examples, and a curve for each category.

    Args:
        examples: the texts.
        vectors_ND: of length 1 each, in the order of ``examples.texts()``.
    """

    def __init__(self, examples: Examples, vectors_ND: Vectors_ND) -> None:
        first = len(examples.ordinary)
        self._ordinary_OD = vectors_ND[:first]
        self._examples_ED: dict[str, Vectors_ND] = {}
        for category, texts in examples.by_category.items():
            self._examples_ED[category] = vectors_ND[first : first + len(texts)]
            first += len(texts)
        self.width = vectors_ND.shape[1]
        self.curves = {category: self._fit(mine_ED) for category, mine_ED in self._examples_ED.items()}

    def probabilities(self, vectors_ND: Vectors_ND) -> Mapping[str, NDArray[np.float64]]:
        """Return category -> the probability [N] that each text is of it; 0 for a vector of zeros.

        Raises:
            ValueError: the vectors have another width than those of the examples.
        """
        if vectors_ND.shape[1] != self.width:
            raise ValueError(
                f"the embedder gives {vectors_ND.shape[1]} numbers, and gave {self.width} for the examples"
            )
        says_something_N = vectors_ND.any(axis=1)
        ordinary_N = _nearest(vectors_ND, self._ordinary_OD)
        found = {}
        for category, curve in self.curves.items():
            near_N = _nearest(vectors_ND, self._examples_ED[category])
            logit_N = curve.near * near_N + curve.ordinary * ordinary_N + curve.offset
            found[category] = np.where(says_something_N, sigmoid(logit_N), 0.0)
        return found

    def _fit(self, mine_ED: Vectors_ND) -> Curve:
        near = np.concatenate([_nearest(mine_ED, mine_ED, itself=True), _nearest(self._ordinary_OD, mine_ED)])
        ordinary = np.concatenate(
            [_nearest(mine_ED, self._ordinary_OD), _nearest(self._ordinary_OD, self._ordinary_OD, itself=True)]
        )
        positive = np.arange(len(near)) < len(mine_ED)
        weights, offset = fit_logistic(np.stack([near, ordinary], axis=1), positive, _PENALTY)
        # a text that is nearer to the examples can never become less likely, however few they are
        return Curve(max(float(weights[0]), 0.0), float(weights[1]), offset)


def _nearest(vectors_ND: Vectors_ND, others_ED: Vectors_ND, *, itself: bool = False) -> NDArray[np.float64]:
    """The largest cosine [N] with any of `others`; with `itself` both are the same texts, none its own neighbour."""
    cosines_NE = vectors_ND @ others_ED.T
    if itself:
        np.fill_diagonal(cosines_NE, -1.0)
    return np.asarray(cosines_NE.max(axis=1), np.float64)
