"""Matrices in 4 bits: whole numbers of -7 to 7, two in a byte, with a scale for each `GROUP` neighbours of a row.

Legend: N rows, K columns, G groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Neighbours that share a scale.
GROUP = 32

#: The largest of the numbers, and the least scale.
MOST, _LEAST = 7, 1e-6

Floats = NDArray[np.float32]


def rounded(weight_NK: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return a matrix, of whole groups, as numbers [N, K] and scales [N, G] that float16 holds. What was rounded so is
    rounded to itself.
    """
    groups_NGK = weight_NK.reshape(len(weight_NK), -1, GROUP)
    scale_NG = np.maximum(np.abs(groups_NGK).max(2) / MOST, _LEAST).astype(np.float16).astype(np.float32)
    numbers = np.rint(groups_NGK / scale_NG[..., None]).clip(-MOST, MOST)
    return numbers.astype(np.int8).reshape(weight_NK.shape), scale_NG


def widened(numbers_NK: NDArray[np.int8], scale_NG: Floats) -> Floats:
    """Return what `rounded` rounded, [N, K]."""
    wide_NGK = numbers_NK.reshape(*scale_NG.shape, GROUP) * scale_NG[..., None]
    return np.asarray(wide_NGK.reshape(numbers_NK.shape), np.float32)


def packed(numbers_NK: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return two neighbours in a byte, the first in its lower half: [N, K / 2], rounded up."""
    high_NK = np.zeros((len(numbers_NK), numbers_NK.shape[1] + numbers_NK.shape[1] % 2), np.uint8)
    high_NK[:, : numbers_NK.shape[1]] = numbers_NK + 8
    return np.asarray(high_NK[:, ::2] | high_NK[:, 1::2] << 4)


def unpacked(pairs: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """Return the numbers, [N, columns], that `packed` put into bytes.

    Raises:
        ValueError: the bytes are of another number of columns.
    """
    if pairs.shape[1] != (columns + 1) // 2:
        raise ValueError(f"{pairs.shape[1]} bytes a row do not hold {columns} numbers of 4 bits")
    both = np.empty((len(pairs), 2 * pairs.shape[1]), np.int8)
    both[:, ::2], both[:, 1::2] = pairs & 15, pairs >> 4
    both -= 8
    return np.ascontiguousarray(both[:, :columns])
