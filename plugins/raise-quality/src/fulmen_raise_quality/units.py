"""What a document is made of: its characters, lines and words, and what kind of text it is.

A word is what stands between blanks; in Chinese every Han character is one, and every run of others between them.
Counting is done over arrays.

Legend: N characters, W words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["en", "zh", "code"]
Hashes = NDArray[np.uint64]

_PRIME = np.uint64(0x100000001B3)

#: Classes of characters; each has a place in `Units.counts`.
OTHER, LETTER, UPPER, HAN, DIGIT, BLANK, DEFECT = range(7)

#: A line that hardly anything but source code or markup has.
_CODE_LINE = re.compile(
    r"^\s*(?:(?:def|class|import|from|return|elif|else|if|for|while|try|except|with|async|await|raise|assert|public|private|"
    r"static|const|let|var|func|fn|struct|void|int|float|package|using|namespace|#include|#define|//|/\*|\*/|@\w|<[/!?a-zA-Z])"
    r"\b.{0,200}[:;{}()=>,\]]\s*$|[\w.\[\]\"']{1,60}\s?(?:=|\+=|-=|:=|==)\s?\S.{0,200}$|.{0,200}[;{}]\s*$|[)\]}]+[;,:]?\s*$"
    r"|\w[\w.]{0,60}\(.{0,200}\)[;:,]?\s*$|(?:\"\"\"|'''|//|/\*|#!).{0,200}$)"
)
_CODE_SHARE = 0.25
_CODE_LINES = 400  # enough to tell

#: Share of the letters from which a text counts as Chinese.
_HAN_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Units:
    """The parts of a text.

    Args:
        kind: "code", or the language of prose.
        lines: without blanks around them, empty ones left out.
        words: in their order; none in Chinese.
        hashes_W: of the words; equal words have equal ones.
        lengths_W: characters of each.
        counts: characters of each class; capitals are not counted among the letters, nor Han characters.
    """

    text: str
    kind: Kind
    lines: list[str]
    words: list[str]
    hashes_W: Hashes
    lengths_W: NDArray[np.int64]
    counts: tuple[int, ...]

    @property
    def letters(self) -> int:
        """Letters of any script."""
        return self.counts[LETTER] + self.counts[UPPER] + self.counts[HAN]


def units_of(text: str) -> Units:
    """Take a text apart."""
    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes_N = character_classes()[np.minimum(codes_N, 0x10FFFF)]
    counts = tuple(np.bincount(classes_N, minlength=DEFECT + 1).tolist())
    raw = text.split("\n")
    lines = [line for line in map(str.strip, raw) if line]
    chinese = counts[HAN] > _HAN_SHARE * (counts[LETTER] + counts[UPPER] + counts[HAN])
    kind: Kind = "code" if _is_code(raw) else "zh" if chinese else "en"
    if kind == "zh":
        return Units(text, kind, lines, [], *_chinese_words(codes_N, classes_N), counts)
    words = text.split()
    lowered = map(str.lower, words)
    hashes_W = np.fromiter(map(hash, lowered), np.int64, len(words)).astype(np.uint64)
    return Units(text, kind, lines, words, hashes_W, np.fromiter(map(len, words), np.int64, len(words)), counts)


def _chinese_words(codes_N: NDArray[np.uint32], classes_N: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes and lengths of the Han characters and of the runs of others."""
    solid_N = np.flatnonzero(classes_N != BLANK)
    han_N = classes_N[solid_N] == HAN
    apart_N = np.diff(solid_N, prepend=-2) > 1
    follows_han_N = np.concatenate([[True], han_N[:-1]])
    starts_W = np.flatnonzero(han_N | apart_N | follows_han_N)
    lengths_W = np.diff(starts_W, append=len(solid_N))
    place_N = np.arange(len(solid_N)) - np.repeat(starts_W, lengths_W)
    powers = np.cumprod(np.full(int(lengths_W.max()), _PRIME, np.uint64), dtype=np.uint64)
    return np.add.reduceat((codes_N[solid_N].astype(np.uint64) + _PRIME) * powers[place_N], starts_W), lengths_W


@cache
def character_classes() -> NDArray[np.uint8]:
    """The class of every code point, uint8 [0x110000]."""
    table = np.full(0x110000, OTHER, np.uint8)
    for start, end in ((0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000)):
        table[start:end] = HAN
    for code in [*range(0x3400), *range(0xA000, 0xF900), *range(0xFB00, 0x10000)]:
        char = chr(code)
        category = unicodedata.category(char)
        if char.isspace():
            table[code] = BLANK
        elif category == "Nd":
            table[code] = DIGIT
        elif category[0] == "L":
            table[code] = UPPER if "A" <= char <= "Z" else LETTER
        elif category in ("Cc", "Co") or code == 0xFFFD:
            table[code] = DEFECT
    return table


def _is_code(lines: list[str]) -> bool:
    shown = [line for line in lines[: 2 * _CODE_LINES] if line.strip()][:_CODE_LINES]
    if len(shown) < 3:
        return False
    return sum(1 for line in shown if _CODE_LINE.match(line)) > _CODE_SHARE * len(shown)
