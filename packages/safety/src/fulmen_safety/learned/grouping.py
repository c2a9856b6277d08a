"""Which texts are near-duplicates or come from one template: they must not lie on both sides of a split.

Two texts belong together if they share more than a given part of the shorter one's shingles: runs of five words, or of
eight characters where there are no blanks.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile("[\u3400-\u9fff]")
_COMMON = 200  # a shingle in more texts than these is a phrase of the language and joins nobody


def groups(texts: Sequence[str], names: Sequence[str], *, overlap: float = 0.4) -> NDArray[np.int64]:
    """Return the group number of each text, int64 [N].

    Args:
        names: texts with the same name other than "" belong together, and to no others: who wrote the name, e.g. that
            of a template, knows. What templates have in common are the words of their slots.
        overlap: share of the shorter text's shingles above which two texts belong together.
    """
    parents = list(range(len(texts)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name:
            parents[root(place)] = root(first.setdefault(name, place))
    kept = [set() if name else shingles(text) for text, name in zip(texts, names, strict=True)]
    holders: dict[int, list[int]] = defaultdict(list)
    for place, some in enumerate(kept):
        for shingle in some:
            holders[shingle].append(place)
    for place, some in enumerate(kept):
        shared: Counter[int] = Counter()
        for shingle in some:
            if len(holders[shingle]) <= _COMMON:
                shared.update(other for other in holders[shingle] if other < place)
        for other, count in shared.items():
            if count > overlap * min(len(some), len(kept[other])):
                parents[root(place)] = root(other)
    roots = [root(place) for place in range(len(texts))]
    number: dict[int, int] = {}
    return np.array([number.setdefault(one, len(number)) for one in roots], np.int64)


def shingles(text: str) -> set[int]:
    """Return the hashes of a text's runs of five words, or of eight characters of Chinese; all of a shorter text."""
    lowered = text.lower()
    if len(_HAN.findall(lowered)) * 2 > len(lowered):
        units, size = list(_HAN.findall(lowered)), 8
    else:
        units, size = _WORD.findall(lowered), 5
    return {hash(tuple(units[at : at + size])) for at in range(max(1, len(units) - size + 1))} if units else set()
