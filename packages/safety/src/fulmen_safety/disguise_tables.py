"""The tables of `data/disguises`, read when first asked for: what looks like what, how Chinese is spelled and written.

Each file states its origin and licence in its first line; `packages/safety/tables/make_tables.py` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources


@cache
def homoglyphs() -> Mapping[str, str]:
    """Return ASCII letter or digit -> characters of other scripts that look like it."""
    return {line[0]: line[2:] for line in _lines("homoglyphs")}


@cache
def simplified() -> Mapping[str, str]:
    """Return traditional character -> its simplified form, where GB 2312 does not have the traditional one."""
    pairs = "".join(_lines("traditional"))
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


@cache
def components() -> Mapping[str, tuple[str, ...]]:
    """Return common character -> the ways to write it as two or three others: 你 -> 人尔, 亻尔."""
    return {line[0]: tuple(line[2:].split(" ")) for line in _lines("components")}


@cache
def syllables() -> Mapping[str, str]:
    """Return toneless syllable -> the characters mostly read so, the most frequent first. The vowel ü is ``v``."""
    return dict(line.split(" ") for line in _lines("syllables"))


@cache
def readings() -> Mapping[str, str]:
    """Return character -> the toneless syllable it is mostly read as."""
    return {char: syllable for syllable, chars in syllables().items() for char in chars}


def chinese_words() -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield each common Chinese word of 2 to 4 characters, its syllables and the logarithm to base 2 of its count, the
    most frequent first."""
    usual = readings()
    for line in _lines("words_zh"):
        step, _, words = line.partition(" ")
        for entry in words.split(" "):
            letters = _LATIN.search(entry)
            word = entry[: letters.start()] if letters else entry
            told = entry[letters.start() :].split(",") if letters else [usual[char] for char in word]
            yield word, tuple(told), int(step)


@cache
def english_words() -> frozenset[str]:
    """Return some 10,000 common English words of three letters or more, in lower case."""
    return frozenset(" ".join(_lines("words_en")).split(" "))


_LATIN = re.compile("[a-z]")


def _lines(name: str) -> list[str]:
    text = (resources.files("fulmen_safety") / f"data/disguises/{name}.txt").read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]
