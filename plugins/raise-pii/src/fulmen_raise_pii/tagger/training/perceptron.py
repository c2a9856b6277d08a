"""An averaged structured perceptron (Collins 2002) over the tagger's features.

All arithmetic is on integers, and the order of the sentences is drawn from a seed: the same data give the same weights,
to the bit, on any machine.

Shapes: T tokens, L labels, F rows that speak at a token.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_pii.tagger.decode import forbidden, viterbi
from fulmen_raise_pii.tagger.emissions import EDGE, PAIR_PLACES, REACH, Rows, pair_rows, word_rows
from fulmen_raise_pii.tagger.word_features import Gazetteer, Word, describe


@dataclass(frozen=True)
class Weights:
    """Trained weights: of features [rows, L] in 8 bits, and of moves from label to label [L, L] on the same scale."""

    features: NDArray[np.int8]
    moves: NDArray[np.int32]


class _Memory:
    def __init__(self, gazetteer: Gazetteer, rows: int) -> None:
        self.gazetteer, self.rows = gazetteer, rows
        self.words: dict[tuple[str, bool], tuple[list[Rows], Word]] = {}
        self.pairs: dict[tuple[str, str, bool, bool], list[Rows]] = {}

    def word(self, word: str, known: bool) -> tuple[list[Rows], Word]:
        key = (word, known)
        if key not in self.words:
            described = describe(word, self.gazetteer, known=known)
            rows, starts = word_rows(described, self.rows)
            self.words[key] = (np.split(rows, starts[1:]), described)
        return self.words[key]

    def pair(self, first: str, second: str, known: tuple[bool, bool]) -> list[Rows]:
        key = (first, second, *known)
        if key not in self.pairs:
            names = self.word(first, known[0])[1].names, self.word(second, known[1])[1].names
            rows_R14 = pair_rows(np.array([names], dtype=np.uint32), self.rows)
            self.pairs[key] = list(rows_R14[:, 0])
        return self.pairs[key]

    def rows_at(self, words: Sequence[str], known: Sequence[bool]) -> list[Rows]:
        """Return for each token the rows that speak there."""
        padded, fine = [EDGE, *words, EDGE], [True, *known, True]
        seen = [self.word(word, one)[0] for word, one in zip(padded, fine, strict=True)]
        pairs = [self.pair(a, b, both) for a, b, both in zip(padded, padded[1:], pairwise(fine), strict=False)]
        at = []
        for token in range(1, len(padded) - 1):
            near = range(max(0, token - REACH), min(len(padded), token + REACH + 1))
            rows = [seen[other][other - token + REACH] for other in near]
            rows += [
                pairs[token + first][place]
                for place, first in enumerate(PAIR_PLACES)
                if 0 <= token + first < len(pairs)
            ]
            at.append(np.concatenate(rows))
        return at


def train(
    blocks: Sequence[tuple[list[str], list[int]]],
    gazetteer: Gazetteer,
    *,
    labels: int,
    rows: int,
    epochs: int,
    hide: float,
    cost: int,
    seed: int,
) -> Weights:
    """Train on blocks of (words, labels).

    Args:
        rows: of the table of weights; a power of two.
        hide: share of the words of a span, and a fifth of that share of the others, that show only their form.
        cost: how far the right labels must lead, per word.
    """
    rng = random.Random(seed)
    memory = _Memory(gazetteer, rows)
    weights = np.zeros((rows, labels), dtype=np.int32)
    summed = np.zeros((rows, labels), dtype=np.int64)
    moves = np.zeros((labels, labels), dtype=np.int32)
    moves_summed = np.zeros((labels, labels), dtype=np.int64)
    barred = forbidden(labels)
    order = list(range(len(blocks)))
    step = 1
    for _ in range(epochs):
        rng.shuffle(order)
        for place in order:
            words, gold = blocks[place]
            known = [rng.random() >= (hide if label else hide / 5) for label in gold]
            rows_at = memory.rows_at(words, known)
            counts = [len(one) for one in rows_at]
            scores_TL = np.add.reduceat(
                weights[np.concatenate(rows_at)], np.cumsum([0, *counts[:-1]]), axis=0, dtype=np.int32
            )
            scores_TL += cost
            scores_TL[np.arange(len(gold)), gold] -= cost
            guess = viterbi(scores_TL, moves + barred)
            if guess != gold:
                for at, right, wrong in zip(rows_at, gold, guess, strict=True):
                    if right != wrong:
                        np.add.at(weights[:, right], at, 1)
                        np.add.at(weights[:, wrong], at, -1)
                        np.add.at(summed[:, right], at, step)
                        np.add.at(summed[:, wrong], at, -step)
                for sign, path in ((1, gold), (-1, guess)):
                    for move in zip([0, *path], [*path, 0], strict=True):
                        moves[move] += sign
                        moves_summed[move] += sign * step
            step += 1
    return _rounded(weights * np.int64(step) - summed, moves * np.int64(step) - moves_summed, step, barred)


#: Average weights are kept in this part of one update. At 1 nearly all fit into 8 bits; finer steps that do not fit
#: are worse.
SCALE = 1


def _rounded(total: NDArray[np.int64], moves_total: NDArray[np.int64], step: int, barred: NDArray[np.int32]) -> Weights:
    features = np.clip((total * SCALE + step // 2) // step, -127, 127).astype(np.int8)
    moves = ((moves_total * SCALE + step // 2) // step).astype(np.int32)
    return Weights(features, moves + barred)
