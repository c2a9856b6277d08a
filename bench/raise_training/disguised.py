"""Texts in every disguise of `fulmen_safety.disguises`, as the panel's views show them to a detector.

A detector judges the raw text and each decoded view. Of an encoded text the raw view says nothing about what is in it,
so harmless texts alone are shown encoded, lest gibberish be taken for attacks; what is decoded in its place, inside the
words that hand it over, is safe or an attack as the hidden text is. None of those words are the ones that
`fulmen raise redteam` uses: its figures stay a test.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from fulmen_safety.disguises import DISGUISES, Disguise
from fulmen_safety.language import language_of

_SLOT = re.compile(r"\{(\w+)\}")
_LONGEST = 260  # characters of a hidden text: with its frame about the window


def encoded(texts: Sequence[str], random_: random.Random) -> Iterator[str]:
    """Yield each text under a disguise drawn from those that change its language, in words that hand it over. Half of
    them are such as a model must be told to decode.
    """
    for text in texts:
        way = _drawn(text, random_, framed=random_.random() < 0.5)
        yield _frame(way, text, random_).replace("{hidden}", way(text[:_LONGEST], random_.randrange(1000)))


def decoded(texts: Sequence[str], random_: random.Random) -> Iterator[str]:
    """Yield each text in the clear, in the words that handed it over."""
    for text in texts:
        yield _frame(_drawn(text, random_, framed=True), text, random_).replace("{hidden}", text[:_LONGEST])


def _drawn(text: str, random_: random.Random, *, framed: bool = False) -> Disguise:
    """Draw a disguise; with `framed` one that a model must be told to decode."""
    told = _tables()["ways"]
    fitting = [
        one for one in DISGUISES.values() if language_of(text) in one.languages and (one.name in told or not framed)
    ]
    return random_.choice(fitting)


def _frame(way: Disguise, text: str, random_: random.Random) -> str:
    """Return a frame with its encoding named; the text alone for a disguise that is read as it stands."""
    told = _tables()
    if way.name not in told["ways"]:
        return "{hidden}"
    fills = {**told["slots"], "way": told["ways"][way.name], "hidden": ["{hidden}"]}
    frame = random_.choice(told["frames"][language_of(text)])
    return _SLOT.sub(lambda match: random_.choice(fills[match[1]]), frame)


@cache
def _tables() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((Path(__file__).parent / "disguised.toml").read_text("utf-8"))
