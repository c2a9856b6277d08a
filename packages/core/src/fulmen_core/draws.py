"""The random numbers of one request: those of a token depend on the seed and on the token's place, and on nothing else.

So an answer that another process goes on with, from the tokens that it has, is drawn as if never interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Draws:
    """A stream of uniform numbers, with a place for each token.

    The first number of a place is the next one of the request's own generator, which steps once a place. A place that
    takes more (what a grammar refuses is drawn again) takes them from a generator of the place's own.

    Args:
        entropy: non-negative ints that are mixed, or None for fresh entropy.
    """

    def __init__(self, entropy: Sequence[int] | None) -> None:
        self._seed = np.random.SeedSequence(entropy)
        self._bits = np.random.PCG64(self._seed)
        self._first = np.random.Generator(self._bits)
        self._more: np.random.Generator | None = None
        self._place = self._drawn = 0

    def random(self) -> float:
        """The place's next number, in [0, 1)."""
        self._drawn += 1
        if self._drawn == 1:
            return self._first.random()
        if self._more is None:
            own = np.random.SeedSequence(self._seed.entropy, spawn_key=(self._place,))
            self._more = np.random.Generator(np.random.PCG64(own))
        return self._more.random()

    def next_place(self) -> None:
        """The place has its token."""
        self._place += 1
        self._drawn, self._more = 0, None

    def skip(self, places: int) -> None:
        """Pass over places that have their tokens already and took a number each."""
        self._place += places
        self._bits.advance(places)
