"""The linear model: tables of small integers, one row per bucket of hashes and one column per head.

The margin of a stretch of text is ``scale * (sum of its features' rows) / sqrt(features) + bias``. Sums are of
integers, so a stretch has the same margin wherever it stands and however the text was cut.

Legend: N characters, H heads, B buckets, A buckets of the categories. Head 0 tells unsafe from safe; the others,
category from category among the unsafe, which needs fewer buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.language import language_of
from fulmen_safety.learned.bert import Bert
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.encoder import Encoder
from fulmen_safety.learned.features import CHARACTER_NGRAMS, Features

#: Characters of a text that `short_gate` is for: some forty words.
SHORT = 200

#: The second table of a model that knows a single category.
NO_CATEGORIES = np.zeros((2, 0), np.int8)


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Weights and what makes probabilities of them.

    Args:
        weights_B: int8, of head 0; B is a power of two.
        weights_AC: int8, of the heads of the categories; A is a power of two.
        scale_H, bias_H: float32.
        categories: of the heads from the second on; with a single one there is no head for it.
        curves: language -> calibration of head 0; ``"*"`` for languages without their own.
        window: characters of the stretches that the model was trained on.
        encoder: a Transformer that judges English stretches too, if there is one.
        share: of its margin in that of head 0; the rest is the linear model's.
        gate: a stretch with a lower linear margin is plainly harmless and not shown to the encoder; None shows it all.
        short_gate: the same of a text of at most `SHORT` characters, which the encoder reads fast; None: as `gate`.
    """

    weights_B: NDArray[np.int8]
    weights_AC: NDArray[np.int8]
    scale_H: NDArray[np.float32]
    bias_H: NDArray[np.float32]
    categories: tuple[str, ...]
    curves: Mapping[str, Curve]
    window: int
    encoder: Encoder | Bert | None = None
    share: float = 0.0
    gate: float | None = None
    short_gate: float | None = None

    def unsafe_alone(self) -> LinearModel:
        """Return the model without the heads that tell the categories."""
        if len(self.categories) == 1:
            return self
        return replace(
            self, weights_AC=NO_CATEGORIES, scale_H=self.scale_H[:1], bias_H=self.bias_H[:1],
            categories=self.categories[:1],
        )  # fmt: skip

    @property
    def shift(self) -> int:
        """How far a hash of 32 bits is moved right to give a bucket of head 0."""
        return _shift(self.weights_B)

    def gate_for(self, text: str) -> float:
        """Return the linear margin from which on a stretch of `text` is shown to the encoder."""
        short = len(text) <= SHORT and self.short_gate is not None
        gate = self.short_gate if short else self.gate
        return -math.inf if gate is None else gate

    def curve(self, language: str) -> Curve:
        """Return the calibration of head 0 for a language."""
        return self.curves.get(language) or self.curves["*"]

    def sums(self, seen: Features) -> NDArray[np.int32]:
        """Return the sums of the rows of all features that end at or before each index, int32 [N + 1, H]."""
        ended = np.zeros((seen.length + 1, len(self.scale_H)), np.int32)
        rows, last = self._rows(seen.hashes()), 0
        for size, hashes in zip(CHARACTER_NGRAMS, seen.ngrams, strict=True):
            first, last = last, last + len(hashes)
            ended[size:] += rows[first:last]
        for hashes, ends in seen.words:
            first, last = last, last + len(hashes)
            ended[ends] += rows[first:last]
        return np.cumsum(ended, axis=0, dtype=np.int32)

    def sum(self, seen: Features, start: int, end: int) -> NDArray[np.int32]:
        """Return the sum [H] of the rows of the features that end after `start` and not after `end`."""
        found = [
            hashes[max(0, start - size + 1) : max(0, end - size + 1)]
            for size, hashes in zip(CHARACTER_NGRAMS, seen.ngrams, strict=True)
        ]
        found += [hashes[(ends > start) & (ends <= end)] for hashes, ends in seen.words]
        return np.asarray(self._rows(np.concatenate(found)).sum(axis=0, dtype=np.int32))

    def margins(self, sums: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the margins [S, H] of S stretches with these sums of rows [S, H] and numbers of features [S]."""
        root = np.sqrt(np.maximum(counts, 1).astype(np.float64))[:, None]
        return np.asarray(sums * self.scale_H.astype(np.float64) / root + self.bias_H.astype(np.float64))

    def shares(self, margins_H: NDArray[np.float64]) -> dict[str, float]:
        """Return category -> share in (0, 1] of the probability of being unsafe at all; the likeliest has 1.

        Several can be near 1: a text may be of more than one category.
        """
        if len(self.categories) == 1:
            return {self.categories[0]: 1.0}
        likely = 1 / (1 + np.exp(-np.clip(margins_H[1:], -30, 30)))
        return dict(zip(self.categories, (likely / likely.max()).tolist(), strict=True))

    def probability(self, text: str, margin: float) -> float:
        """Return the calibrated probability that `text` with this margin of head 0 is unsafe."""
        return float(self.curve(language_of(text)).probability(margin))

    def _rows(self, hashes: NDArray[np.uint32]) -> NDArray[np.int8]:
        unsafe_1 = self.weights_B.take(hashes >> np.uint32(self.shift))[:, None]
        if not self.weights_AC.size:
            return unsafe_1
        return np.concatenate([unsafe_1, self.weights_AC.take(hashes >> np.uint32(_shift(self.weights_AC)), axis=0)], 1)


def _shift(table: NDArray[np.int8]) -> int:
    return 32 - (len(table).bit_length() - 1)
