"""From scores to labels: the best sequence (Viterbi), within islands of bounded length.

Between words that are plainly outside of everything lie islands, and each is decoded by itself. A label thus depends on
its island and `REACH` words around it, not on the whole text; where an island grows longer than `LONGEST_ISLAND`, each
of its words is labelled by itself. That bounds what may still change when a text goes on.

Labels: 0 is outside; 2k + 1 begins kind k and 2k + 2 continues it. Shapes: T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.int32]

LONGEST_ISLAND = 64

#: Words that are plainly outside between two islands; fewer, such as a line end within an address, divide nothing.
CHANNEL = 3

_NEVER = -(1 << 28)


def forbidden(labels: int) -> Scores:
    """Return what each pair of labels costs because it is impossible, [L, L] from left to right: a kind is continued
    only by itself."""
    costs_LL = np.zeros((labels, labels), dtype=np.int32)
    for inside in range(2, labels, 2):
        costs_LL[:, inside] = _NEVER
        costs_LL[[inside - 1, inside], inside] = 0
    return costs_LL


def viterbi(scores_TL: Scores, moves_LL: Scores) -> list[int]:
    """Return the best labels of a sequence that follows on label 0 and precedes it.

    Args:
        moves_LL: the score of each label after each, impossible ones included.
    """
    best_L = scores_TL[0] + moves_LL[0]
    back = []
    for scores_L in scores_TL[1:]:
        reached_LL = best_L[:, None] + moves_LL
        back.append(reached_LL.argmax(axis=0))
        best_L = reached_LL.max(axis=0) + scores_L
    label = int((best_L + moves_LL[:, 0]).argmax())
    labels = [label]
    for steps in reversed(back):
        label = int(steps[label])
        labels.append(label)
    return labels[::-1]


def islands(scores_TL: Scores, margin: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of tokens among which being outside leads by more than `margin` at fewer than `CHANNEL` in a
    row."""
    open_T = np.flatnonzero(scores_TL[:, 1:].max(axis=1) + margin > scores_TL[:, 0])
    if len(open_T):
        breaks = np.flatnonzero(np.diff(open_T) > CHANNEL)
        starts, stops = open_T[np.r_[0, breaks + 1]], open_T[np.r_[breaks, len(open_T) - 1]] + 1
        yield from zip(starts.tolist(), stops.tolist(), strict=True)


def runs(labels: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, kind) of each run of labels that begins a kind and goes on in it."""
    start = 0
    while start < len(labels):
        label = labels[start]
        end = start + 1
        if label:
            inside = label + label % 2  # 2k + 2, whether it begins or, at an island's edge, only continues
            while end < len(labels) and labels[end] == inside:
                end += 1
            yield start, end, (label - 1) // 2
        start = end


def decode(scores_TL: Scores, moves_LL: Scores, margin: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first token, end token, kind) of everything that is found in one block."""
    for start, stop in islands(scores_TL, margin):
        if stop - start <= LONGEST_ISLAND:
            labels = viterbi(scores_TL[start:stop], moves_LL)
        else:
            labels = scores_TL[start:stop].argmax(axis=1).tolist()
        for first, end, kind in runs(labels):
            yield start + first, start + end, kind
