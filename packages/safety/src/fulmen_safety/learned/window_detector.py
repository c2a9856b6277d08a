"""Whole texts judged by a learned model: every stretch of sentences as long as those it was trained on, the worst
counts. A long text is not judged as a whole, in which one bad sentence would drown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fulmen_core.guard import Finding
from fulmen_safety.language import language_of
from fulmen_safety.learned.bert import Bert
from fulmen_safety.learned.encoder import Encoder
from fulmen_safety.learned.features import KEPT, Features, features
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.one_thread import one_thread

#: Stretches of a text that a Transformer hears at most, the worst by the linear model.
_HEARD = 2

_BORDER = re.compile(r"[.!?。！？；…][\"'”’)）]*(?=\s)\s*|[。！？；]|\n+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The worst stretch of a text.

    Args:
        margin: of head 0.
    """

    start: int
    end: int
    margin: float


def worst_stretch(model: LinearModel, text: str) -> Judgement | None:
    """Return the stretch of sentences with the highest margin; None for a text without any character."""
    if not text:
        return None
    starts, ends = stretches(text, model.window)
    margins = stretch_margins(model, text, starts, ends)
    worst = int(np.argmax(margins[:, 0]))
    return Judgement(int(starts[worst]), int(ends[worst]), float(margins[worst, 0]))


def stretch_margins(
    model: LinearModel, text: str, starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the margins [S, H] of ``text[starts[s]:ends[s]]``.

    A cascade in English (arXiv 2601.04603): the Transformer hears the worst stretches of those that reach the model's
    gate, and its margin is blended with theirs; the others cannot be the worst. Of a text without such a stretch the
    linear margins stand, all below the gate.
    """
    seen = features(text)
    sums, counts = model.sums(seen), seen.counts()
    margins = model.margins(sums[ends] - sums[starts], counts[ends] - counts[starts])
    if model.encoder and seen.words and language_of(text) == "en":
        likely = np.argsort(-margins[:, 0], kind="stable")[:_HEARD]
        likely = likely[margins[likely, 0] >= model.gate_for(text)]
        if len(likely):
            with one_thread():
                heard = [_heard(model.encoder, text, seen, starts[one], ends[one]) for one in likely.tolist()]
            blended = (1 - model.share) * margins[likely, 0] + model.share * np.array(heard)
            margins[:, 0] = -np.inf
            margins[likely, 0] = blended
    return margins


def _heard(encoder: Encoder | Bert, text: str, seen: Features, start: int, end: int) -> float:
    """Return a Transformer's margin of ``text[start:end]``; one over words takes those that are hashed already."""
    if isinstance(encoder, Bert):
        return encoder.margin(text[start:end])
    first, last = np.searchsorted(seen.starts, (start, end))
    return encoder.margin(seen.words[0][0][first:last])


def stretches(text: str, window: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the stretches start and end: up to each sentence's end, as many sentences as fit into `window`
    characters, and as many as fit into a quarter of it, lest a bad sentence drown. A sentence that does not fit is cut
    into halves of windows. A text that fits is one stretch.
    """
    if len(text) <= window:
        return np.array([0]), np.array([len(text)])
    wide, narrow = _stretches(text, window), _stretches(text, max(window // 4, 2))
    return np.concatenate([wide[0], narrow[0]]), np.concatenate([wide[1], narrow[1]])


def _stretches(text: str, window: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    borders = [0]
    for end in _sentence_ends(text):
        while end - borders[-1] > window:
            borders.append(borders[-1] + window // 2)
        if end > borders[-1]:
            borders.append(end)
    ends = np.array(borders[1:])
    return np.array(borders)[np.searchsorted(borders, ends - window)], ends


def _sentence_ends(text: str) -> tuple[int, ...]:
    """Return where the sentences end; of the last few texts they are kept, as several detectors ask for the same."""
    return _kept_ends(text) if len(text) <= KEPT else _ends(text)


def _ends(text: str) -> tuple[int, ...]:
    return (*(match.end() for match in _BORDER.finditer(text)), len(text))


_kept_ends = lru_cache(maxsize=4)(_ends)


class WindowDetector:
    """A detector of whole texts (`fulmen_safety.detector`), a `Scorer` and a `PlainReader`.

    Args:
        floor: findings below this probability are not reported.
        reads_plain: see `PlainReader`. For a model of English and Chinese; one that learned French from texts with
            accents must see them.
    """

    def __init__(self, name: str, model: LinearModel, floor: float, *, reads_plain: bool = False) -> None:
        self.name, self.reads_plain = name, reads_plain
        self._model, self._floor = model, floor
        self._unsafe = model.unsafe_alone()  # of most texts the categories need not be known

    def scan(self, text: str) -> list[Finding]:
        """Return the worst stretch of sentences, once for each category that it may be of."""
        worst = worst_stretch(self._unsafe, text)
        if worst is None:
            return []
        unsafe = self._model.probability(text, worst.margin)
        if unsafe < self._floor:
            return []
        return [
            Finding(self.name, category, unsafe * share, worst.start, worst.end, self.name)
            for category, share in self._shares(text, worst).items()
            if unsafe * share >= self._floor
        ]

    def scores(self, text: str) -> dict[str, float]:
        """Return category -> probability that `text` is of it; the highest is that of being unsafe at all."""
        worst = worst_stretch(self._unsafe, text)
        if worst is None:
            return dict.fromkeys(self._model.categories, 0.0)
        unsafe = self._model.probability(text, worst.margin)
        return {category: unsafe * share for category, share in self._shares(text, worst).items()}

    def _shares(self, text: str, worst: Judgement) -> dict[str, float]:
        """Return category -> its share of the probability of the worst stretch."""
        seen = features(text)
        counts = seen.counts()
        sums_1H = self._model.sum(seen, worst.start, worst.end)[None]
        [margins_H] = self._model.margins(sums_1H, counts[[worst.end]] - counts[[worst.start]])
        return self._model.shares(margins_H)
