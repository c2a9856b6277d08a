"""A streaming detector made of patterns: exact findings, exact hold-back, time linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fulmen_core.guard import Finding
from fulmen_safety.pattern import Pattern


class PatternDetector:
    """Finds every match of every pattern, under one category. Keeps both laws of `fulmen_safety.detector` by
    construction.

    Patterns with the same anchor are searched for in the same windows around its occurrences; most text has few.
    """

    def __init__(self, name: str, category: str, patterns: Sequence[Pattern]) -> None:
        self.name = name
        self.category = category
        self.patterns = tuple(patterns)
        self.look_behind = max((pattern.look_behind for pattern in patterns), default=0)
        by_anchor: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            by_anchor.setdefault(pattern.anchor, []).append(pattern)
        self._groups = [
            (re.compile(anchor), max(pattern.longest for pattern in group), group)
            for anchor, group in by_anchor.items()
        ]

    def scan(self, text: str) -> list[Finding]:
        """Return the findings in `text`, overlapping ones included."""
        found: list[Finding] = []
        for anchor, longest, group in self._groups:
            for start, stop in _windows(anchor, text, longest):
                for pattern in group:
                    found.extend(
                        Finding(self.name, self.category, score, begin, end, pattern.label)
                        for begin, end, score in pattern.matches(text, start, stop)
                    )
        return found

    def hold_from(self, text: str) -> int:
        """Return the index from which a longer text could still make a match."""
        return min((pattern.hold_from(text) for pattern in self.patterns), default=len(text))


def _windows(anchor: re.Pattern[str], text: str, longest: int) -> Iterator[tuple[int, int]]:
    """Yield disjoint ranges of start positions, outside of which no match of `longest` characters contains the anchor.

    An occurrence that `finditer` skips overlaps one that it gives, so a match starts before the end of a given one.
    """
    low = high = 0
    for occurrence in anchor.finditer(text):
        start = max(0, occurrence.start() - longest)
        if start > high:
            if high:
                yield low, high
            low = start
        high = occurrence.end()
    if high:
        yield low, high
