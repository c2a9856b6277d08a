"""What is kept of sequences that ended, so that others who begin alike need not compute it again.

A kept prefix is one unit: the last window of a sequence (a slot) with the pages of its full caches. Of a window, only
the end of a sequence is there, so a unit serves its whole length, or shorter ones as far as the runner can take back.

Legend: T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import CacheLayout


@dataclass(slots=True, eq=False)
class KeptPrefix:
    """A unit.

    Attributes:
        tokens_T: what was computed, int32.
        chunked: how many of them were computed as a prompt, in chunks; the rest came one by one.
        written: how far its window was ever written, guesses that did not stand included: that much of it is lost.
        slot, pages: where it lies.
        salt: of whom it is, and with which adapter: `GenerationRequest.cache_salt`.
        request_id: of the request that computed it.
        branch: whether several sequences are known to go on from here, in different ways.
    """

    tokens_T: NDArray[np.int32]
    chunked: int
    written: int
    slot: int
    pages: list[int]
    salt: str
    request_id: str
    branch: bool = False


class KeptPrefixes:
    """The units, the least recently used first."""

    def __init__(self) -> None:
        self._units: dict[int, KeptPrefix] = {}  # by slot

    def __len__(self) -> int:
        return len(self._units)

    def __iter__(self) -> Iterator[KeptPrefix]:
        return iter(list(self._units.values()))

    def add(self, unit: KeptPrefix) -> None:
        """Keep `unit` as the most recently used."""
        self._units[unit.slot] = unit

    def remove(self, unit: KeptPrefix) -> None:
        """Keep it no longer."""
        del self._units[unit.slot]

    def touch(self, unit: KeptPrefix) -> None:
        """It was used."""
        self._units[unit.slot] = self._units.pop(unit.slot)

    def oldest(self, but: KeptPrefix | None = None) -> KeptPrefix | None:
        """The least recently used unit other than `but`."""
        return next((unit for unit in self._units.values() if unit is not but), None)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which lengths of a computed sequence can be gone on from.

    Attributes:
        whole: while no longer than this, any length: no window has lost anything.
        rewind: of longer ones, the last so many tokens can be taken back.
        multiple: only multiples of this count, and only of what was computed in chunks; 0: any.
    """

    whole: float
    rewind: int
    multiple: int = 0

    @classmethod
    def of(cls, cache: CacheSpec, layout: CacheLayout, multiple: int = 0) -> Reach:
        """That of a runner."""
        windows = [group.window for group in cache.groups if group.window is not None]
        return cls(min(windows) + layout.rewind if windows else float("inf"), layout.rewind, multiple)

    def cut(self, tokens: int) -> int:
        """The longest length, at most `tokens`, at which a sequence may be divided."""
        return tokens // self.multiple * self.multiple if self.multiple else tokens

    def usable(self, shared: int, held: int, chunked: int, written: int) -> int:
        """The longest length, at most `shared`, that a sequence of `held` tokens serves; 0: none.

        `chunked` of them were computed in chunks, and its window was written up to `written`.
        """
        length = min(shared, held)
        if self.multiple:
            length = self.cut(min(length, chunked))
        return length if written <= self.whole or written - length <= self.rewind else 0


def common_prefix(one_T: NDArray[np.int32], other_T: NDArray[np.int32]) -> int:
    """How many tokens two sequences begin with alike."""
    shorter = min(len(one_T), len(other_T))
    differ = one_T[:shorter] != other_T[:shorter]
    first = int(differ.argmax()) if shorter else 0
    return first if shorter and differ[first] else shorter


def superseded(unit: KeptPrefix, others: Iterable[KeptPrefix], reach: Reach) -> list[KeptPrefix]:
    """Those of `others` that `unit` can stand for in everything."""
    if reach.multiple or unit.written > reach.whole:
        return []
    return [
        other
        for other in others
        if other is not unit
        and other.salt == unit.salt
        and common_prefix(other.tokens_T, unit.tokens_T) == len(other.tokens_T)
    ]
