"""How much each label is worth at each token, from the words around it.

The score of a label is a sum over features of single words and of neighbouring pairs, each taken at its distance from
the token. So what a word adds at every distance is one small table, worked out when the word is first met, and a text
costs one table look-up and a few additions per token.

Shapes: T tokens, L labels, F features, R distances, W = 2·REACH + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

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


def _mixed(hashes: NDArray[np.uint32], place: int, rows: int) -> Rows:
    """Return the rows of features at a place."""
    mixed = (hashes ^ np.uint32(place * 0x9E3779B1 & 0xFFFFFFFF)) * np.uint32(0x85EBCA6B)
    return ((mixed ^ (mixed >> np.uint32(15))) & np.uint32(rows - 1)).astype(np.int64)


def _rows(hashes: Sequence[int], place: int, rows: int) -> Rows:
    return _mixed(np.array(hashes, dtype=np.uint32), place, rows)


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
    """The weights of words and pairs, and what has been worked out of words so far. Safe to use from several threads:
    an entry is the same whoever makes it.

    Args:
        weights: [rows, L], a power of two of rows.
        gazetteer: the name lists.
        remembered: words kept before the memory starts anew.
    """

    def __init__(self, weights: NDArray[np.int8], gazetteer: Gazetteer, remembered: int = 20_000) -> None:
        self._weights, self._gazetteer, self._remembered = weights, gazetteer, remembered
        self._words: dict[str, tuple[Scores, tuple[int, int]]] = {}

    def scores(self, words: Sequence[str]) -> Scores:
        """Return the score of each label at each token of one block, [T, L]."""
        count = len(words) + 2  # with an edge on each side
        met = [self._words.get(word) or self._meet(word) for word in (EDGE, *words, EDGE)]
        word_TWL = np.stack([scores for scores, _ in met])
        pair_RPL = self._pairs(np.array([names for _, names in met], dtype=np.uint32))
        scores_TL = np.zeros((count, word_TWL.shape[2]), dtype=np.int32)
        for distance in range(-REACH, REACH + 1):  # the word at token t + distance speaks for the label at t
            low, high = max(0, -distance), count - max(0, distance)
            if low < high:
                scores_TL[low:high] += word_TWL[low + distance : high + distance, distance + REACH]
        for place, first in enumerate(PAIR_PLACES):
            low, high = max(0, -first), min(count, count - 1 - first)
            if low < high:
                scores_TL[low:high] += pair_RPL[place, low + first : high + first]
        return scores_TL[1:-1]

    def _meet(self, word: str) -> tuple[Scores, tuple[int, int]]:
        described = describe(word, self._gazetteer)
        rows = word_rows(described, len(self._weights))
        starts = np.cumsum([0, *map(len, rows[:-1])])
        scores_WL = np.add.reduceat(self._weights[np.concatenate(rows)], starts, axis=0, dtype=np.int32)
        met = scores_WL, described.names
        if len(self._words) >= self._remembered:
            self._words.clear()
        self._words[word] = met
        return met

    def _pairs(self, names_T2: NDArray[np.uint32]) -> Scores:
        """Return the scores of all neighbouring pairs at each place, [R, pairs, L]: `pair_rows` for many at once."""
        first_P4, second_P4 = names_T2[:-1][:, [0, 0, 1, 1]], names_T2[1:][:, [0, 1, 0, 1]]
        both_P4 = first_P4 * np.uint32(31) + second_P4 * np.uint32(1_000_003) + np.arange(4, dtype=np.uint32)
        places = range(16, 16 + len(PAIR_PLACES))
        rows_RP4 = np.stack([_mixed(both_P4, place, len(self._weights)) for place in places])
        return self._weights[rows_RP4].sum(axis=2, dtype=np.int32)
