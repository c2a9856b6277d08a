"""The memory that the graph's caches are bound to: one array for the keys and one for the values of each cache, all
slots in it.

A window cache holds its content from the front, at most C positions. When it is full, the attention operator drops the
oldest ``C - W + 1`` at once: that happens at lengths that follow from W and C alone.

Legend: R rows (one a slot), K kv heads, C capacity, h head width, W window, G = C - W + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits

Cache = tuple[NDArray[Any], NDArray[Any]]

#: An eighth more memory than the window makes it rare that its content has to move.
_WINDOW_SLACK = 8


class Dropped(NamedTuple):
    """What the window caches of a sequence dropped when it came to be of `length` tokens: [K, G, h] of each array."""

    length: int
    parts: tuple[NDArray[Any], ...]


class KVBuffers:
    """Caches [R, K, C, h]: C is the context for full caches, the window and some slack for window caches."""

    def __init__(self, config: ModelConfig, limits: EngineLimits, dtype: str = "float32") -> None:
        shapes: dict[int, tuple[int, ...]] = {}
        windows: list[int] = []
        self._stride = 0
        for group in CacheSpec.of(config).groups:
            capacity = limits.max_context
            if group.window is not None:
                # The operator insists on room for the window, however short the context. Of the tokens that may be
                # taken back, at most one may have made the content move.
                slack = max(group.window // _WINDOW_SLACK, limits.draft_tokens)
                capacity, self._stride = group.window + slack, slack + 1
                self._capacity = capacity
                windows += group.caches
            shapes |= dict.fromkeys(group.caches, (limits.slots, config.num_key_value_heads, capacity, config.head_dim))
        # zeros: the operating system commits memory when it is first written
        self.arrays: list[Cache] = [
            (np.zeros(shapes[number], dtype), np.zeros(shapes[number], dtype)) for number in range(len(shapes))
        ]
        self._windows = [array for number in windows for array in self.arrays[number]]

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

    def last_drop(self, length: int) -> int:
        """The greatest length up to `length` at which the window caches of a sequence drop something; 0: none yet."""
        if not self._windows or length <= self._capacity:
            return 0
        return length - (length - self._capacity - 1) % self._stride

    def to_be_dropped(self, row: int, length: int) -> Dropped:
        """A copy of what the window caches drop at `length`, while the row holds a token less."""
        return Dropped(length, tuple(array[row, :, : self._stride].copy() for array in self._windows))

    def take_back(self, row: int, dropped: Dropped, length: int) -> None:
        """Make the window caches of a row what they were at `length`, before `dropped` was."""
        # of what lies there, the first so many; none if some of what was dropped is taken back, too
        kept = max(0, length - (dropped.length - 1 - self._capacity) - self._stride)
        for array, part in zip(self._windows, dropped.parts, strict=True):
            array[row, :, self._stride : self._stride + kept] = array[row, :, :kept].copy()
            array[row, :, : self._stride] = part
