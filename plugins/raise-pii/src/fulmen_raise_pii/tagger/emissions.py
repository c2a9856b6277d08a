"""How much each label is worth at each token, from the words around it.

The score of a label is a sum over features of single words and of neighbouring pairs, each taken at its distance from
the token. So what a word adds at every distance is one small table, worked out when the word is first met, and a text
costs one table look-up and a few additions per token.

Shapes: T tokens, L labels, F features, R distances, W = 2·REACH + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_pii.tagger.word_features import Gazetteer, Word, describe

#: Words on each side that are looked at.
REACH = 3

#: Where a pair of neighbours may lie: its first word is this many words from the token.
PAIR_PLACES = (-2, -1, 0, 1)

EDGE = "\x00"  # the word that stands for what lies outside of a block
VOID = "\x00\x00"  # the word that says nothing about any other; no token is like it

#: What keeps two blocks apart.
_APART = (VOID,) * (REACH - 1)

Rows = NDArray[np.int64]
Scores = NDArray[np.int32]


#: Place -> what tells a feature there from the same one elsewhere: words by their distance, pairs after them.
_SALT = np.arange(32, dtype=np.uint32) * np.uint32(0x9E3779B1)
_FIRST_PAIR_PLACE = 16


def _mixed(hashes: NDArray[np.uint32], salt: NDArray[np.uint32] | np.uint32, rows: int) -> Rows:
    """Return the rows of features at places."""
    mixed = (hashes ^ salt) * np.uint32(0x85EBCA6B)
    return ((mixed ^ (mixed >> np.uint32(15))) & np.uint32(rows - 1)).astype(np.int64)


def word_rows(word: Word, rows: int) -> tuple[Rows, list[int]]:
    """Return the rows of the weights that a word touches, those for the token `REACH` words after it first, and where
    those for each distance start."""
    features: list[int] = []
    places: list[int] = []
    starts = []
    for distance in range(-REACH, REACH + 1):
        starts.append(len(features))
        features += word.far + (word.near if abs(distance) <= 1 else ()) + (word.own if distance == 0 else ())
        places += [distance + REACH] * (len(features) - len(places))
    return _mixed(np.array(features, dtype=np.uint32), _SALT[places], rows), starts


def pair_rows(names_P22: NDArray[np.uint32], rows: int) -> Rows:
    """Return the rows that pairs of neighbours touch at each of `PAIR_PLACES`, [R, P, 4]: each word as itself or as
    its class.

    Args:
        names_P22: for each pair the two names of its first word, and those of its second.
    """
    first_P4, second_P4 = names_P22[:, 0, [0, 0, 1, 1]], names_P22[:, 1, [0, 1, 0, 1]]
    both_P4 = first_P4 * np.uint32(31) + second_P4 * np.uint32(1_000_003) + np.arange(4, dtype=np.uint32)
    salts = _SALT[_FIRST_PAIR_PLACE : _FIRST_PAIR_PLACE + len(PAIR_PLACES)]
    return _mixed(both_P4[None], salts[:, None, None], rows)


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
        return self.scores_of([words])[0]

    def scores_of(self, blocks: Sequence[Sequence[str]]) -> list[Scores]:
        """Return the scores of several blocks, worked out together. No context reaches from one to the next."""
        spread = [word for words in blocks for word in (EDGE, *words, EDGE, *_APART)]
        met = [self._words.get(word) or self._meet(word) for word in spread]
        word_TWL = np.stack([scores for scores, _ in met])
        names_T2 = np.array([names for _, names in met], dtype=np.uint32)
        rows_RP4 = pair_rows(np.stack([names_T2[:-1], names_T2[1:]], axis=1), len(self._weights))
        pair_RPL = self._weights[rows_RP4].sum(axis=2, dtype=np.int32)
        if len(blocks) > 1:
            void_T = np.array([word == VOID for word in spread])
            pair_RPL[:, void_T[:-1] | void_T[1:]] = 0
        count = len(spread) - len(_APART)
        scores_TL = np.zeros((count, word_TWL.shape[2]), dtype=np.int32)
        for distance in range(-REACH, REACH + 1):  # the word at token t + distance speaks for the label at t
            low, high = max(0, -distance), count - max(0, distance)
            if low < high:
                scores_TL[low:high] += word_TWL[low + distance : high + distance, distance + REACH]
        for place, first in enumerate(PAIR_PLACES):
            low, high = max(0, -first), min(count, count - 1 - first)
            if low < high:
                scores_TL[low:high] += pair_RPL[place, low + first : high + first]
        ends = np.cumsum([len(words) + 2 + len(_APART) for words in blocks]).tolist()
        return [
            scores_TL[end - len(words) - 1 - len(_APART) : end - 1 - len(_APART)]
            for words, end in zip(blocks, ends, strict=True)
        ]

    def _meet(self, word: str) -> tuple[Scores, tuple[int, int]]:
        described = describe(word, self._gazetteer)
        rows, starts = word_rows(described, len(self._weights))
        scores_WL = np.add.reduceat(self._weights[rows], starts, axis=0, dtype=np.int32)
        if word == VOID:
            scores_WL[:] = 0
        met = scores_WL, described.names
        if len(self._words) >= self._remembered:
            self._words.clear()
        self._words[word] = met
        return met
