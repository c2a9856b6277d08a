"""The runner's cache slots: who has one."""

from __future__ import annotations


class SlotPool:
    """Free slots of ``0 .. size-1``. The last one freed is the next one taken: its memory is the warmest."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size))[::-1]

    @property
    def free(self) -> tuple[int, ...]:
        """The slots nobody has."""
        return tuple(self._free)

    def take(self) -> int:
        """Return a free slot.

        Raises:
            ValueError: there is none.
        """
        if not self._free:
            raise ValueError(f"none of {self.size} slots is free")
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Return `slot` to the pool.

        Raises:
            ValueError: it is free already, or no slot of this pool: two sequences would share a cache.
        """
        if slot in self._free or not 0 <= slot < self.size:
            raise ValueError(f"slot {slot} of {self.size} is not taken")
        self._free.append(slot)
