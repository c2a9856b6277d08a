"""The detector ``secrets``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from fulmen_raise_secrets.context import surroundings
from fulmen_raise_secrets.tokens import tokens
from fulmen_safety import UserError
from fulmen_safety.pattern import Pattern
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Table, read_settings


class SecretsSettings(Table):
    """Settings of the detector ``secrets``.

    Args:
        kinds: what to look for; empty means everything.
        allow: values to let pass, as they are written: keys that are published, or made for tests.
    """

    kinds: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class SecretsDetector(PatternDetector):
    """Secrets by their form and by what stands around them. Streams exactly: see `fulmen_safety.pattern`.

    There are some sixty patterns, so the hold-back asks for all short forms without blanks at once, and only in what
    the text ends with of the characters that they are made of; for the others only where the last one is theirs.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        super().__init__("secrets", "ip_secrets", patterns)
        self.kinds = tuple(sorted({pattern.label for pattern in patterns}))
        words = [one for one in patterns if one.longest <= _SHORT and _plain(one)]
        self._words = re.compile("|".join(one.unfinished.pattern for one in words)) if words else None
        self._word_characters = frozenset(
            char for char in map(chr, range(128)) if any(one.admits(char) for one in words)
        )
        self._others = [one for one in patterns if one not in words]

    def hold_from(self, text: str) -> int:
        """Return the index from which a longer text could still make a match."""
        hold = start = end = len(text)
        if self._words:
            lowest = max(0, end - _SHORT)
            while start > lowest and text[start - 1] in self._word_characters:
                start -= 1
            if start < end and (match := self._words.search(text, start)):
                hold = match.start()
        for pattern in self._others:
            if (
                end
                and pattern.admits(text[-1])
                and (match := pattern.unfinished.search(text, max(0, end - pattern.longest)))
            ):
                hold = min(hold, match.start())
        return hold


#: Patterns of at most so many characters are asked for together.
_SHORT = 420


def _plain(pattern: Pattern) -> bool:
    """Whether whatever decides it is made of ASCII without blanks."""
    bodies = {body for node in (pattern.context, pattern.body, pattern.not_after) for body in node.classes}
    named = any(not body.isascii() or body.startswith("^") or re.search(r"\\[A-Za-z]", body) for body in bodies)
    return not named and not any(pattern.admits(blank) for blank in " \t\r\n")


def make(settings: Mapping[str, object]) -> SecretsDetector:
    """Make the detector.

    Raises:
        UserError: a setting or a kind that it does not know.
    """
    where = "the settings of the detector 'secrets'"
    read = read_settings(SecretsSettings, settings, where)
    patterns = [*tokens(), *surroundings()]
    known = sorted({pattern.label for pattern in patterns})
    for kind in read.kinds:
        if kind not in known:
            close = get_close_matches(kind, known, 1)
            remedy = f"did you mean {close[0]!r}?" if close else f"the kinds are {', '.join(known)}"
            raise UserError(f"unknown kind {kind!r}", where=where, remedy=remedy)
    if read.kinds:
        patterns = [pattern for pattern in patterns if pattern.label in read.kinds]
    if read.allow:
        allowed = frozenset(read.allow)
        patterns = [replace(pattern, accept=_except(allowed, pattern.accept)) for pattern in patterns]
    return SecretsDetector(patterns)


def _except(allowed: frozenset[str], accept: Callable[[str], float]) -> Callable[[str], float]:
    return lambda found: 0.0 if found in allowed else accept(found)
