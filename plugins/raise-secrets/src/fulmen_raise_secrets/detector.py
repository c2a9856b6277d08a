"""The detector ``secrets``."""

from __future__ import annotations

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
    """Secrets by their form and by what stands around them. Streams exactly: see `fulmen_safety.pattern`."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        super().__init__("secrets", "ip_secrets", patterns)
        self.kinds = tuple(sorted({pattern.label for pattern in patterns}))


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
