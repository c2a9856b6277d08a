"""The detector ``profanity``: English words that are profane, insulting, sexual or slurs, each standing alone.

It knows words, not what is meant: a quotation counts like an insult, and a nurse's report may be full of findings. Off
by default; name it in a policy beside ``toxicity``, which weighs whole texts and misses a curse in a long one.
Look-alike, hidden and spelled-out letters are undone by the panel's views; digits for letters (``sh1t``) are not, as
those views show only words that a dictionary has.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Literal

from fulmen_safety import Finding
from fulmen_safety.pattern import Pattern, chars
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.pattern_follower import PatternFollower
from fulmen_safety.settings import Field, Table, read_settings
from fulmen_safety.terms import trie

CATEGORY = "hate_discrimination"

Kind = Literal["profane", "insult", "sexual", "slur"]
KINDS: tuple[Kind, ...] = ("profane", "insult", "sexual", "slur")

_SCORE = 0.9
_LETTER = chars("0-9A-Za-z*")


class ProfanitySettings(Table):
    """Settings of the detector ``profanity``.

    Args:
        kinds: which words count.
        allow: words that do not, in any case.
    """

    kinds: tuple[Kind, ...] = Field(KINDS, min_length=1)
    allow: tuple[str, ...] = ()


def make(settings: Mapping[str, object]) -> ProfanityDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know, and where nothing is left to find."""
    return ProfanityDetector(read_settings(ProfanitySettings, settings, "the settings of the detector 'profanity'"))


class ProfanityDetector:
    """Finds listed words. Streams exactly: what is held back is what may still become one."""

    name = "profanity"

    def __init__(self, settings: ProfanitySettings) -> None:
        self.kinds: tuple[str, ...] = settings.kinds
        allowed = {word.casefold() for word in settings.allow}
        listed = {kind: [word for word in _lists()[kind] if word not in allowed] for kind in settings.kinds}
        self._patterns = PatternDetector(
            self.name, CATEGORY, [_pattern(kind, words) for kind, words in listed.items() if words]
        )
        self.look_behind = self._patterns.look_behind

    def highest_scores(self) -> dict[str, float]:
        """Return the score of every finding; see `fulmen_safety.detector.Bounded`."""
        return {CATEGORY: _SCORE}

    def scan(self, text: str) -> list[Finding]:
        """Return the listed words in `text`."""
        return self._patterns.scan(text)

    def hold_from(self, text: str) -> int:
        """Return the index from which `text` might still become one."""
        return self._patterns.hold_from(text)

    def follow(self, least: float = 0.0) -> PatternFollower:
        """Return what reads a stream."""
        return self._patterns.follow(least)


@cache
def _lists() -> Mapping[str, Sequence[str]]:
    return tomllib.loads((resources.files("fulmen_raise_toxicity") / "data/profanity.toml").read_text("utf-8"))


def _pattern(kind: str, words: Sequence[str]) -> Pattern:
    first = sorted({form for word in words for form in (word[0], word[0].upper())})
    return Pattern(
        label=kind,
        body=trie(words),
        anchor=f"[{re.escape(''.join(first))}]",
        not_before=(_LETTER,),
        not_after=_LETTER,
        accept=_certainty,
    )


def _certainty(_: str) -> float:
    return _SCORE
