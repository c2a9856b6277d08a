"""Which row of the cache buffers holds which slot, and the swaps that bring the slots of a batch side by side.

ONNX Runtime updates a cache in place only where the batch is one block of memory. Slots are the engine's and do not
move; rows are ours and may. Sequences that decode together stay together, so a swap is needed only when one of them
begins or ends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Block(NamedTuple):
    """Adjoining rows for a batch.

    Attributes:
        first: the first row.
        slots: the slot in each row, in order.
        swaps: pairs of rows whose contents must be exchanged first.
    """

    first: int
    slots: tuple[int, ...]
    swaps: tuple[tuple[int, int], ...]


class Rows:
    """A permutation of `count` slots over as many rows, at first the identity."""

    def __init__(self, count: int) -> None:
        self._row_of = list(range(count))
        self._slot_at = list(range(count))

    @property
    def slots(self) -> tuple[int, ...]:
        """The slot in each row."""
        return tuple(self._slot_at)

    def row_of(self, slot: int) -> int:
        """The row that holds `slot`."""
        return self._row_of[slot]

    def adjoin(self, slots: Collection[int]) -> Block:
        """Bring `slots` (distinct, at least one) side by side with the fewest swaps of one of them with another."""
        size = len(slots)
        taken = [False] * len(self._slot_at)
        for slot in slots:
            taken[self._row_of[slot]] = True
        first = max(range(len(taken) - size + 1), key=lambda row: sum(taken[row : row + size]))
        window = range(first, first + size)
        outside = [row for row, is_taken in enumerate(taken) if is_taken and row not in window]
        holes = [row for row in window if not taken[row]]
        swaps = tuple(zip(outside, holes, strict=True))
        for one, other in swaps:
            self._slot_at[one], self._slot_at[other] = self._slot_at[other], self._slot_at[one]
            self._row_of[self._slot_at[one]], self._row_of[self._slot_at[other]] = one, other
        return Block(first, tuple(self._slot_at[row] for row in window), swaps)
