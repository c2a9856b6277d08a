"""What a page says beside its text: menus, notices, calls to buy. Phrases: `data/boilerplate.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources

#: Characters of a line; a longer one is text that happens to use such a phrase.
_LONGEST = {"en": 160, "zh": 40}


def boilerplate_share(text: str, lines: Sequence[str], language: str) -> float:
    """Share of the characters of `lines`, which are those of `text`, that stand in lines of boilerplate."""
    lowered = text.lower()
    # most texts have none of most phrases, which finding each in the whole text tells at once
    present = tuple(phrase for phrase in phrases() if phrase in lowered)
    if not present:
        return 0.0
    pattern = _pattern(present)
    longest = _LONGEST[language]
    found = sum(len(line) for line in lines if len(line) <= longest and pattern.search(line))
    return found / max(sum(map(len, lines)), 1)


@cache
def phrases() -> tuple[str, ...]:
    """The phrases of both languages, in lower case."""
    table = tomllib.loads((resources.files("fulmen_raise_quality") / "data/boilerplate.toml").read_text("utf-8"))
    return tuple(phrase.lower() for one in table.values() for phrase in one)


@lru_cache(maxsize=1024)
def _pattern(present: tuple[str, ...]) -> re.Pattern[str]:
    # a border between words only where the phrase itself is of such: Chinese and © have none
    parts = [rf"(?<![A-Za-z]){re.escape(one)}(?![A-Za-z])" if one.isascii() else re.escape(one) for one in present]
    return re.compile("|".join(parts), re.IGNORECASE)
