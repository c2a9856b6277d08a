"""Text into the tokens that the tagger labels, each bounded, so that a bounded look behind sees whole ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: The most characters of a token, and of the blanks between two. What is longer is a barrier: no token, and no
#: context reaches across it. So is text in East Asian scripts, which the tagger has not learned.
LONGEST_TOKEN, LONGEST_BLANK = 20, 8

#: The most characters from one token's start to the next one's.
LONGEST_STEP = LONGEST_TOKEN + LONGEST_BLANK

_EAST_ASIAN = "\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_LETTER = rf"[^\W\d_{_EAST_ASIAN}]"
_BARRIER = re.compile(
    rf"[{_EAST_ASIAN}]+|{_LETTER}{{{LONGEST_TOKEN + 1},}}|[0-9]{{{LONGEST_TOKEN + 1},}}|\s{{{LONGEST_BLANK + 1},}}"
)
_TOKEN = re.compile(rf"{_LETTER}+|[0-9]+|\s*\n\s*|\S")


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive tokens without a barrier among them: where each starts and ends in the text, and its word."""

    starts: list[int]
    ends: list[int]
    words: list[str]


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of `text` in order: words, numbers, single other characters, and line ends (``"\\n"``, or
    ``"\\n\\n"`` where a blank line follows)."""
    start = 0
    for barrier in _BARRIER.finditer(text):
        if barrier.start() > start:
            yield from _block(text, start, barrier.start())
        start = barrier.end()
    if start < len(text):
        yield from _block(text, start, len(text))


def _block(text: str, start: int, stop: int) -> Iterator[Block]:
    starts, ends, words = [], [], []
    for token in _TOKEN.finditer(text, start, stop):
        word = token[0]
        starts.append(token.start())
        ends.append(token.end())
        words.append(("\n\n" if word.count("\n") > 1 else "\n") if word.isspace() else word)
    if starts:
        yield Block(starts, ends, words)
