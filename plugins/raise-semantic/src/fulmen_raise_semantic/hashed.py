"""Texts as weighted n-grams of characters, projected to a fixed number of dimensions by hashing with signs
(Weinberger et al. 2009, arXiv 0902.2206). One to four characters: in Chinese these are words, elsewhere parts of them.

Legend: N texts, D dimensions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 2048
_LENGTHS = (1, 2, 3, 4)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_APART = re.compile(r"[\W_]+")


class HashedNgrams:
    """Weights of n-grams by rarity (inverse document frequency), of the slots that they hash to."""

    def __init__(self, weights_D: NDArray[np.float32]) -> None:
        self._weights_D = weights_D

    @classmethod
    def fit(cls, texts: Sequence[str]) -> HashedNgrams:
        """Count in how many of `texts` each slot occurs."""
        seen_D = np.zeros(DIMENSIONS, np.float64)
        for text in texts:
            seen_D[np.unique(_hashes(text) % np.uint64(DIMENSIONS))] += 1
        return cls((1.0 + np.log((1.0 + len(texts)) / (1.0 + seen_D))).astype(np.float32))

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 [N, D], of no particular length; zeros for a text without letters and digits."""
        vectors_ND = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            distinct, times = np.unique(_hashes(text), return_counts=True)
            slots = (distinct % np.uint64(DIMENSIONS)).astype(np.intp)
            signs = np.where(distinct >> np.uint64(63), 1.0, -1.0)
            weights = (1.0 + np.log(times)) * self._weights_D[slots] * signs
            vectors_ND[row] = np.bincount(slots, weights, DIMENSIONS)
        return vectors_ND


def _hashes(text: str) -> NDArray[np.uint64]:
    """The n-grams of a text in its compared form, hashed, with their repetitions; none with a blank alone."""
    shown = _APART.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()
    if not shown:
        return np.zeros(0, np.uint64)
    codes = np.frombuffer(f" {shown} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    found = []
    hashes = np.zeros(len(codes), np.uint64)
    for length in _LENGTHS:
        count = len(codes) - length + 1
        if count < 1:
            break
        hashes = (hashes[:count] ^ (codes[length - 1 :] + np.uint64(length))) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(31)
        found.append(hashes[codes[:count] != 32] if length == 1 else hashes)
    return np.concatenate(found) * _MULTIPLIER
