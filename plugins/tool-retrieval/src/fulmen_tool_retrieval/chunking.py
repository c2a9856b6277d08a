"""Cuts a document into chunks of whole sentences, with the end of one chunk repeated at the beginning of the next.

Sizes are in characters of Latin text; a character of Chinese, Japanese or Korean counts three times, for it says about
as much and makes about as many tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fulmen_tool_retrieval.text_forms import UNSPACED

UNSPACED_WEIGHT = 3

_UNSPACED = re.compile(f"[{UNSPACED}]")
#: Where a sentence ends: after Chinese punctuation with its closing quotes, after Latin punctuation before a space, and
#: between paragraphs.
_SENTENCE_END = re.compile(r"[。！？；…]+[”’」』）】]*|[.!?]+[\"'”’)\]]*(?=\s)|\n\s*\n")


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """How large chunks are.

    Attributes:
        size: the most that a chunk holds.
        overlap: the most of a chunk's end that the next one repeats, in whole sentences; less than half of `size`.
    """

    size: int = 900
    overlap: int = 150

    def __post_init__(self) -> None:
        if self.size < 2 * UNSPACED_WEIGHT or not 0 <= self.overlap <= self.size // 2:
            raise ValueError(f"chunks of {self.size} with an overlap of {self.overlap}: the overlap is at most half")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document: ``text[start:end]``."""

    start: int
    end: int


def chunk_spans(text: str, sizes: ChunkSizes) -> Iterator[Span]:
    """Yield the chunks of `text` in order. Together they hold every character that is no space."""
    sentences = [piece for sentence in sentence_spans(text) for piece in _pieces(text, sentence, sizes.size)]
    weights = [_weight(text, span) for span in sentences]
    first = 0
    while first < len(sentences):
        last, total = first, 0
        while last < len(sentences) and (last == first or total + weights[last] <= sizes.size):
            total += weights[last]
            last += 1
        yield Span(sentences[first].start, sentences[last - 1].end)
        if last == len(sentences):
            return
        begin, repeated = last, 0
        # the chunk after must go further than this one, so at least its first sentence is new and fits
        while begin - 1 > first and repeated + weights[begin - 1] <= min(sizes.overlap, sizes.size - weights[last]):
            begin -= 1
            repeated += weights[begin]
        first = begin


def sentence_spans(text: str) -> Iterator[Span]:
    """Yield the sentences of `text` without the spaces around them; a paragraph's end ends a sentence too."""
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        if span := _stripped(text, begin, match.end()):
            yield span
        begin = match.end()
    if span := _stripped(text, begin, len(text)):
        yield span


def _stripped(text: str, start: int, end: int) -> Span | None:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return Span(start, end) if start < end else None


def _weight(text: str, span: Span) -> int:
    piece = text[span.start : span.end]
    return len(piece) + (UNSPACED_WEIGHT - 1) * sum(1 for _ in _UNSPACED.finditer(piece))


def _pieces(text: str, sentence: Span, size: int) -> Iterator[Span]:
    """The sentence, or stretches of it that fit, cut at spaces where there are any."""
    if _weight(text, sentence) <= size:
        yield sentence
        return
    start = sentence.start
    while start < sentence.end:
        end, weight, space = start, 0, 0
        while end < sentence.end:
            weight += UNSPACED_WEIGHT if _UNSPACED.match(text[end]) else 1
            if weight > size:
                break
            if text[end].isspace():
                space = end
            end += 1
        if end < sentence.end and space > start:
            end = space
        if span := _stripped(text, start, end):
            yield span
        start = end
