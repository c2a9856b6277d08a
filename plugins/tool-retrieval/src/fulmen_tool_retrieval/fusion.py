"""Reciprocal rank fusion: one ranking from several, whatever their scores mean (Cormack, Clarke and Buettcher 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: How far the first ranks are ahead of those behind. The paper's 60 lets what both rankings hold somewhere pass what
#: one of them holds first; with 10 the right passage stays ahead more often where the rankings disagree.
K = 10


def fused(rankings: Iterable[Sequence[int]]) -> list[tuple[int, float]]:
    """Return the ids of all `rankings`, each the best first, with ``sum of 1 / (K + rank)``, the best first.

    Of equals the smaller id comes first, so that a search repeats itself.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))
