"""Streams judged by a learned model: after each word, the last characters before it.

The finding is put at the word with which the probability rises, so that only the word being written is held back. All
of it hangs on a bounded number of characters before, which is both laws of `fulmen_safety.detector`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fulmen_core.guard import Finding
from fulmen_safety.language import HAN_RANGES
from fulmen_safety.learned.features import LONGEST_WORD, REACH, features, is_open, units
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.prefix_follower import WIDEST_STEP, PlaceWeights, PrefixFollower


class PrefixDetector:
    """An incremental detector, and a `Scorer`.

    Args:
        window: characters that are judged together.
        floor: findings below this probability are not reported.
    """

    def __init__(self, name: str, model: LinearModel, floor: float, window: int | None = None) -> None:
        self.name = name
        self._model, self._floor = model, floor
        self._window = window or model.window
        self.look_behind = self._window + REACH + WIDEST_STEP
        self._place_weights = PlaceWeights(model)

    def scan(self, text: str) -> list[Finding]:
        """Return each word with which the probability rises to the floor or further above it, once per category. Behind
        a gap wider than `WIDEST_STEP` it rises from nothing."""
        if not text:
            return []
        starts, ends = units(text)
        if not len(ends):
            return []
        probability, margins = self._after(text, ends)
        before = np.zeros_like(probability)
        before[1:] = np.where(starts[1:] - ends[:-1] <= WIDEST_STEP, probability[:-1], 0.0)
        rises = np.flatnonzero((probability >= self._floor) & (probability > before))
        found = []
        for place in rises.tolist():
            for category, share in self._model.shares(margins[place]).items():
                score = float(probability[place]) * share
                if score >= self._floor:
                    start, end = int(starts[place]), int(ends[place])
                    found.append(Finding(self.name, category, score, start, end, self.name))
        return found

    def hold_from(self, text: str) -> int:
        """Return where the word being written starts."""
        back = 0
        while back < len(text) and back <= LONGEST_WORD and is_open(text[-1 - back]):
            back += 1
        return len(text) if back > LONGEST_WORD else len(text) - back

    def follow(self, least: float = 0.0) -> PrefixFollower:
        """Return what reads a stream, for findings that have at least this score."""
        return PrefixFollower(self, self._place_weights, self._window, max(self._floor, least))

    def scores(self, text: str) -> dict[str, float]:
        """Return category -> the highest probability after any word of `text`."""
        _, ends = units(text)
        if not len(ends):
            return dict.fromkeys(self._model.categories, 0.0)
        probability, margins = self._after(text, ends)
        worst = int(np.argmax(probability))
        return {
            category: float(probability[worst]) * share
            for category, share in self._model.shares(margins[worst]).items()
        }

    def _after(self, text: str, ends: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the probability [S] and the margins [S, H] after each word."""
        seen = features(text)
        sums, counts = self._model.sums(seen), seen.counts()
        begins = np.maximum(ends - self._window, 0)
        margins = self._model.margins(sums[ends] - sums[begins], counts[ends] - counts[begins])
        han = np.concatenate([[0], np.cumsum(_han_characters(text))])
        chinese = han[ends] > han[begins]
        probability = np.where(
            chinese,
            self._model.curve("zh").probability(margins[:, 0]),
            self._model.curve("en").probability(margins[:, 0]),
        )
        return probability, margins


def _han_characters(text: str) -> NDArray[np.bool_]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    found = np.zeros(len(codes), np.bool_)
    for low, high in HAN_RANGES:
        found |= (codes >= ord(low)) & (codes <= ord(high))
    return found
