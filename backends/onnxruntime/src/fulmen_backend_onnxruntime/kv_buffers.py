"""The memory that the graph's caches are bound to: one array for the keys and one for the values of each cache, all
slots in it.

Legend: R rows (one a slot), K kv heads, C capacity, h head width, W window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits

#: A window cache of capacity C moves its content down once in C - W + 1 tokens. An eighth more memory makes that rare.
_WINDOW_SLACK = 8


class KVBuffers:
    """Caches [R, K, C, h]: C is the context for full caches, the window and an eighth for window caches."""

    def __init__(self, config: ModelConfig, limits: EngineLimits) -> None:
        shapes: dict[int, tuple[int, ...]] = {}
        for group in CacheSpec.of(config).groups:
            # The operator insists on room for the window, however short the context.
            capacity = limits.max_context if group.window is None else group.window + group.window // _WINDOW_SLACK
            shape = (limits.slots, config.num_key_value_heads, capacity, config.head_dim)
            shapes |= dict.fromkeys(group.caches, shape)
        # zeros: the operating system commits memory when it is first written
        self.arrays: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = [
            (np.zeros(shapes[number], np.float32), np.zeros(shapes[number], np.float32))
            for number in range(len(shapes))
        ]

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return sum(k.nbytes + v.nbytes for k, v in self.arrays)

    def copy(self, source: int, target: int, length: int) -> None:
        """Make row `target` what `source` is, which holds a sequence of `length` tokens."""
        for pair in self.arrays:
            for array in pair:
                end = min(length, array.shape[2])
                array[target, :, :end] = array[source, :, :end]

    def swap(self, rows: tuple[int, int], lengths: Sequence[int]) -> None:
        """Exchange two rows that hold sequences of these two lengths, copying no more than they fill."""
        one, other = rows
        for pair in self.arrays:
            for array in pair:
                end = min(max(lengths), array.shape[2])
                if min(lengths) == 0:
                    source, target = (one, other) if lengths[0] else (other, one)
                    array[target, :, :end] = array[source, :, :end]
                else:
                    kept = array[one, :, :end].copy()
                    array[one, :, :end] = array[other, :, :end]
                    array[other, :, :end] = kept
