"""Which texts a model is not trained on. Whole groups of alike texts go to one side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def folds(groups_R: NDArray[np.int64], count: int, seed: int) -> NDArray[np.intp]:
    """Return the fold of each row: groups dealt out at random, the largest first, each to the smallest fold."""
    sizes = np.bincount(groups_R)
    random = np.random.default_rng(seed).permutation(len(sizes))
    held = np.zeros(count, np.intp)
    fold_of = np.zeros(len(sizes), np.intp)
    for group in random[np.argsort(-sizes[random], kind="stable")]:
        fold_of[group] = int(np.argmin(held))
        held[fold_of[group]] += sizes[group]
    return fold_of[groups_R]


def aside(groups_R: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows are put aside: each group with probability `share`."""
    random = np.random.default_rng([seed, 1])
    return np.asarray(random.random(int(groups_R.max()) + 1) < share)[groups_R]
