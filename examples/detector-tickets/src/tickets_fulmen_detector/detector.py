"""Finds ticket numbers, `TICK-0042`, exactly as far as they have come in a stream.

It is made of pattern nodes, not of a regular expression: from the same nodes RAISE derives what could still *become* a
match, which is how an answer is held back no further than it must be.
"""

from __future__ import annotations

from collections.abc import Mapping

from fulmen_safety.pattern import Pattern, chars, literal, repeat, seq
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Field, Table, read_settings

DIGIT = chars("0-9")


class TicketsSettings(Table):
    """Settings of the detector, as a policy gives them.

    Args:
        prefix: what ticket numbers begin with, before the hyphen.
    """

    prefix: str = Field("TICK", pattern="^[A-Z]{2,10}$")


def make(settings: Mapping[str, object]) -> PatternDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know."""
    prefix = read_settings(TicketsSettings, settings, "the settings of the detector 'tickets'").prefix
    ticket = Pattern(
        label="ticket",
        body=seq(literal(f"{prefix}-"), repeat(DIGIT, 4, 6)),
        anchor=prefix,
        # Characters are written out, never \b or \w: Python sees no border between a Han character and a Latin letter.
        not_before=(chars("A-Z"),),
        not_after=DIGIT,
    )
    return PatternDetector("tickets", "ip_secrets", [ticket])
