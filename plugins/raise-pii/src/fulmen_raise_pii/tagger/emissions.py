"""How much each label is worth at each token, from the words around it.

The score of a label is a sum over features of single words and of neighbouring pairs, each taken at its distance from
the token. So what a word adds at every distance is one small table, worked out when the word is first met, and a text
costs one table look-up and a few additions per token.

Shapes: T tokens, L labels, F features, R distances, W = 2·REACH + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_pii.tagger.word_features import Gazetteer, Word, describe

#: Words on each side that are looked at.
REACH = 3

#: Where a pair of neighbours may lie: its first word is this many words from the token.
PAIR_PLACES = (-2, -1, 0, 1)

EDGE = "\x00"  # the word that stands for what lies outside of a block

Rows = NDArray[np.int64]
Scores = NDArray[np.int32]


def _rows(hashes: Sequence[int], place: int, rows: int) -> Rows:
    """Return the rows of features at a place."""
    mixed = (np.array(hashes, dtype=np.uint32) ^ np.uint32(place * 0x9E3779B1 & 0xFFFFFFFF)) * np.uint32(0x85EBCA6B)
    return ((mixed ^ (mixed >> np.uint32(15))) & np.uint32(rows - 1)).astype(np.int64)


def word_rows(word: Word, rows: int) -> list[Rows]:
    """Return the rows of the weights that a word touches, by its distance from the token: `REACH` words before it
    first."""
    at_distance = []
    for distance in range(-REACH, REACH + 1):
        features = word.far + (word.near if abs(distance) <= 1 else ()) + (word.own if distance == 0 else ())
        at_distance.append(_rows(features, distance + REACH, rows))
    return at_distance


def pair_rows(first: Word, second: Word, rows: int) -> list[Rows]:
    """Return the rows that a pair of neighbours touches at each of `PAIR_PLACES`: each word as itself or as its
    class."""
    both = [
        (a * 31 + b * 1_000_003 + place) & 0xFFFFFFFF for place, (a, b) in enumerate(product(first.names, second.names))
    ]
    return [_rows(both, place + 16, rows) for place in range(len(PAIR_PLACES))]


class Emissions:
    """The weights of words and pairs, and what has been worked out from them so far. Safe to use from several
    threads: an entry is the same whoever makes it.

    Args:
        weights: [rows, L], a power of two of rows.
        gazetteer: the name lists.
        remembered: words and pairs kept before the memory starts anew.
    """

    def __init__(self, weights: NDArray[np.int8], gazetteer: Gazetteer, remembered: int = 50_000) -> None:
        self._weights, self._gazetteer, self._remembered = weights, gazetteer, remembered
        self._words: dict[str, tuple[Scores, Word]] = {}
        self._pairs: dict[tuple[str, str], Scores] = {}

    def scores(self, words: Sequence[str]) -> Scores:
        """Return the score of each label at each token of one block, [T, L]."""
        padded = [EDGE, *words, EDGE]
        count = len(words)
        word_TWL = np.stack([(self._words.get(word) or self._meet(word))[0] for word in padded])
        pair_TRL = np.stack([self._pair(pair) for pair in pairwise(padded)])
        scores_TL = np.zeros((count + 2, word_TWL.shape[2]), dtype=np.int32)
        for distance in range(-REACH, REACH + 1):  # the word at token t + distance speaks for the label at t
            low, high = max(0, -distance), count + 2 - max(0, distance)
            if low < high:
                scores_TL[low:high] += word_TWL[low + distance : high + distance, distance + REACH]
        for place, first in enumerate(PAIR_PLACES):
            low, high = max(0, -first), min(count + 2, count + 1 - first)
            if low < high:
                scores_TL[low:high] += pair_TRL[low + first : high + first, place]
        return scores_TL[1:-1]

    def _meet(self, word: str) -> tuple[Scores, Word]:
        described = describe(word, self._gazetteer)
        met = (self._summed(word_rows(described, len(self._weights))), described)
        if len(self._words) >= self._remembered:
            self._words.clear()
        self._words[word] = met
        return met

    def _pair(self, pair: tuple[str, str]) -> Scores:
        known = self._pairs.get(pair)
        if known is not None:
            return known
        first, second = (self._words.get(word) or self._meet(word) for word in pair)
        scores_RL = self._summed(pair_rows(first[1], second[1], len(self._weights)))
        if len(self._pairs) >= self._remembered:
            self._pairs.clear()
        self._pairs[pair] = scores_RL
        return scores_RL

    def _summed(self, rows: list[Rows]) -> Scores:
        return np.stack([self._weights[one].sum(axis=0, dtype=np.int32) for one in rows])
