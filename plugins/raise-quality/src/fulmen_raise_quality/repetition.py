"""How much of a text repeats itself: the share of its characters in its commonest n-gram, and in n-grams that stood
before (Gopher, Rae et al. 2021, arXiv 2112.11446, appendix A.1.1).

Legend: W words, G n-grams.
"""

from __future__ import annotations

import numpy as np

from fulmen_raise_quality.units import Hashes, Units

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def repetition(units: Units) -> dict[str, float]:
    """Return the five measures of a text that is not empty. A Chinese word has about two characters, so that an n-gram
    of words has twice as many of them."""
    scale = 2 if units.kind == "zh" else 1
    solid = int(units.lengths_W.sum())
    found = {}
    for size in (2, 3, 4):
        found[f"top_{size}_gram"] = _commonest(units, size * scale) / solid
    for size in (5, 10):
        found[f"duplicate_{size}_grams"] = _repeated(units, size * scale) / solid
    return found


def _commonest(units: Units, size: int) -> int:
    """Characters in the n-gram that has most of them in all its places; of those that occur more than twice."""
    grams_G = _grams(units.hashes_W, size)
    if not len(grams_G):
        return 0
    _, first_U, times_U = np.unique(grams_G, return_index=True, return_counts=True)
    ends_W = np.concatenate([[0], np.cumsum(units.lengths_W)])
    lengths_U = ends_W[first_U + size] - ends_W[first_U]
    return int(np.where(times_U > 2, times_U * lengths_U, 0).max())


def _repeated(units: Units, size: int) -> int:
    """Characters that lie in an n-gram which stood earlier in the text; each counts once."""
    grams_G = _grams(units.hashes_W, size)
    if not len(grams_G):
        return 0
    order_G = np.argsort(grams_G, kind="stable")
    again_G = order_G[1:][grams_G[order_G[1:]] == grams_G[order_G[:-1]]]
    change_W = np.zeros(len(units.hashes_W) + 1, np.int64)
    np.add.at(change_W, again_G, 1)
    np.add.at(change_W, again_G + size, -1)
    return int(units.lengths_W[np.cumsum(change_W[:-1]) > 0].sum())


def _grams(hashes_W: Hashes, size: int) -> Hashes:
    """A hash of each run of `size` words; equal runs have equal ones."""
    count = len(hashes_W) - size + 1
    if count < 1:
        return hashes_W[:0]
    grams_G = np.zeros(count, np.uint64)
    for at in range(size):
        grams_G = (grams_G ^ hashes_W[at : at + count]) * _MULTIPLIER
        grams_G ^= grams_G >> np.uint64(29)
    return grams_G
