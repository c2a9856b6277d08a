"""A streaming detector made of patterns: exact findings, exact hold-back, time linear in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

from fulmen_core.guard import Finding
from fulmen_safety.necessary import clauses
from fulmen_safety.pattern import Pattern
from fulmen_safety.pattern_follower import PatternFollower

#: Characters, and triples of them, of which it is remembered what may start there.
_REMEMBERED = 1 << 14
#: With more literals it is faster to search for the anchor at once.
_MOST_LITERALS = 8


class PatternDetector:
    """Finds every match of every pattern, under one category. Keeps both laws of `fulmen_safety.detector` by
    construction.

    A whole text is searched around what matches contain: patterns with the same anchor in the same windows around its
    occurrences; most text has few. A stream is read place by place: with given characters few patterns may start.
    """

    def __init__(self, name: str, category: str, patterns: Sequence[Pattern]) -> None:
        self.name = name
        self.category = category
        self.patterns = tuple(patterns)
        self.look_behind = max((pattern.look_behind for pattern in patterns), default=0)
        self._longest = max((pattern.longest for pattern in patterns), default=0)
        by_anchor: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            by_anchor.setdefault(pattern.anchor, []).append(pattern)
        self._groups = [
            (_Anchor(anchor), max(pattern.longest for pattern in group), group) for anchor, group in by_anchor.items()
        ]
        # functions of characters alone: a pattern takes longer to hash than to ask
        self.starting_with = lru_cache(_REMEMBERED)(partial(_starting_with, self.patterns))
        self.starting_in = lru_cache(_REMEMBERED)(partial(_starting_in, self.starting_with))

    def scan(self, text: str) -> list[Finding]:
        """Return the findings in `text`, overlapping ones included."""
        found: list[Finding] = []
        lowered = text.lower() if text.isascii() else None
        for anchor, longest, group in self._groups:
            if not anchor.may_occur(text, lowered):
                continue
            for start, stop in _windows(anchor.expression, text, longest):
                for pattern in group:
                    found.extend(
                        Finding(self.name, self.category, score, begin, end, pattern.label)
                        for begin, end, score in pattern.matches(text, start, stop)
                    )
        return found

    def hold_from(self, text: str) -> int:
        """Return the index from which a longer text could still make a match."""
        end = len(text)
        for place in range(max(0, end - self._longest), end):
            if self.is_open(text, place, self.starting(text, place)):
                return place
        return end

    def follow(self, least: float = 0.0) -> PatternFollower:
        """Return what reads a stream, for findings that have at least this score."""
        return PatternFollower(self, least)

    def starting(self, text: str, place: int) -> tuple[Pattern, ...]:
        """Return the patterns of which a match, context included, may start at `place`; a few too many."""
        some = self.starting_with(text[place])
        return self.starting_in(text[place - 1 : place + 2]) if some and place else some

    def is_open(self, text: str, place: int, patterns: Sequence[Pattern]) -> bool:
        """Return whether what starts at `place` might still become a match of one of these in a longer text."""
        for pattern in patterns:  # noqa: SIM110 - a generator would double the time of what is asked most often
            if pattern.unfinished.match(text, place):
                return True
        return False

    def found_at(self, text: str, place: int, patterns: Sequence[Pattern]) -> list[Finding]:
        """Return the findings of these whose match, context included, starts at `place`."""
        found = []
        for pattern in patterns:
            match = pattern.expression.match(text, place)
            if match and (score := pattern.accept(match[1])):
                found.append(Finding(self.name, self.category, score, match.start(1), match.end(1), pattern.label))
        return found


class _Anchor:
    """What a text is searched for, and literals one of which is in every text that has it: they are found faster."""

    def __init__(self, anchor: str) -> None:
        self.expression = re.compile(anchor)
        told = clauses(anchor)
        literals = sorted(told[0]) if told and len(told[0]) <= _MOST_LITERALS else []
        self._any_case = "(?i" in anchor
        self._literals = tuple(literal.lower() for literal in literals) if self._any_case else tuple(literals)

    def may_occur(self, text: str, lowered: str | None) -> bool:
        """Return whether the anchor may be in `text`; `lowered` is the text in lower case, if it is ASCII."""
        searched = lowered if self._any_case else text
        if not self._literals or searched is None:
            return True  # beyond ASCII more letters than one are the same in another case
        for literal in self._literals:  # noqa: SIM110 - as in `is_open`
            if literal in searched:
                return True
        return False


def _starting_with(patterns: Sequence[Pattern], char: str) -> tuple[Pattern, ...]:
    return tuple(pattern for pattern in patterns if pattern.may_start("", char))


def _starting_in(starting_with: Callable[[str], tuple[Pattern, ...]], characters: str) -> tuple[Pattern, ...]:
    """Return what may start at the second of two or three characters."""
    some = starting_with(characters[1])
    return tuple(pattern for pattern in some if pattern.may_start(characters[0], characters[1:]))


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
