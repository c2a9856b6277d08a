"""Which samples a step sees: a pure function of (seed, step), so that there is no loader state to save or lose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def batch_indices(count: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """Return the sample numbers of one optimizer step, int64 ``[batch]``.

    The samples are shuffled anew in each epoch by a generator seeded with ``(seed, epoch)``, and steps cut the endless
    concatenation of epochs into consecutive batches: every sample is seen once before any is seen twice, also when
    `batch` does not divide `count`, or exceeds it.

    Args:
        count: samples in the set, at least 1.
        batch: samples in a step, at least 1.
        step: number of the step, from 0.
        seed: seed of the whole order.
    """
    parts: list[NDArray[np.int64]] = []
    position, missing = step * batch, batch
    while missing:
        epoch, offset = divmod(position, count)
        order = np.random.default_rng((seed, epoch)).permutation(count)
        part = order[offset : offset + missing].astype(np.int64)
        parts.append(part)
        position += len(part)
        missing -= len(part)
    return np.concatenate(parts)
