"""A stream read for the matches of patterns: every place is looked at until it is known what starts there, then never
again.

A place is *open* while what starts there might still become a match (`fulmen_safety.pattern`). What starts before the
first open place is known, and the text before it is settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fulmen_core.guard import Finding

if TYPE_CHECKING:
    from fulmen_safety.pattern_detector import PatternDetector


class PatternFollower:
    """Reads one stream for one detector (`fulmen_safety.detector.Follower`).

    Args:
        least: score that a finding has at least.
    """

    def __init__(self, detector: PatternDetector, least: float) -> None:
        self._detector, self._least = detector, least
        self._text = ""
        self._decided = 0  # the first place that is not decided
        self._found: list[Finding] = []  # that are not known to be before all that is wanted

    def read(self, text: str, dropped: int, since: int) -> tuple[Sequence[Finding], int]:
        """Return what starts at `since` or later, and the first open place."""
        if dropped:
            self._forget(dropped)
        if not self._text or not text.startswith(self._text):
            self._decided, self._found = max(0, since - self._detector.look_behind), []
        self._text = text
        self._decide(text)
        if self._found:
            self._found = [one for one in self._found if one.start >= since]
        return self._found, self._decided

    def _forget(self, dropped: int) -> None:
        self._text = self._text[dropped:]
        self._decided -= dropped
        self._found = [
            replace(one, start=one.start - dropped, end=one.end - dropped)
            for one in self._found
            if one.start >= dropped
        ]

    def _decide(self, text: str) -> None:
        detector = self._detector
        # `detector.starting` in line: a call for each place is a fifth of what a token costs in Chinese
        starting_with, starting_in = detector.starting_with, detector.starting_in
        for place in range(self._decided, len(text)):
            patterns = starting_with(text[place])
            if patterns and place:
                patterns = starting_in(text[place - 1 : place + 2])
            if patterns:
                if detector.is_open(text, place, patterns):
                    self._decided = place
                    return
                for one in detector.found_at(text, place, patterns):
                    if one.score >= self._least:
                        self._found.append(one)
        self._decided = len(text)


class JointFollower:
    """Reads one stream for several detectors."""

    def __init__(self, followers: Sequence[PatternFollower]) -> None:
        self._followers = tuple(followers)

    def read(self, text: str, dropped: int, since: int) -> tuple[Sequence[Finding], int]:
        """Return what any of them finds, and the first place that is open for one."""
        read = [follower.read(text, dropped, since) for follower in self._followers]
        return [finding for found, _ in read for finding in found], min(hold for _, hold in read)
