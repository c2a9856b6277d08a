"""How suspect a text is, category by category, also where no policy would act: what ranks texts and fills the scores
of a moderation result."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fulmen_safety.detector import Scorer
from fulmen_safety.normalise import View, views
from fulmen_safety.panel import Panel
from fulmen_safety.seat import Seat

log = logging.getLogger(__name__)


def text_scores(panel: Panel, text: str, phase: str) -> dict[str, dict[str, float]]:
    """Return detector -> category -> its highest score, in [0, 1], over the views of `text`.

    A detector that has an opinion of every text (`Scorer`) is asked for it; of another its findings count, also those
    below the policy's threshold. Categories of which a detector says nothing are left out, and so are detectors that
    fail: what a failure means is the verdict's to say.
    """
    shown = views(text, decoded=phase != "output")  # as the panel shows them
    opinions = {}
    for seat in panel.seats:
        if phase in seat.phases:
            try:
                opinions[seat.entry.name] = _opinion(seat, text, shown)
            except Exception as error:
                log.warning("%s, so it gave no scores", seat.failure(error).reason)
    return opinions


def category_scores(panel: Panel, text: str, phase: str) -> dict[str, float]:
    """Return category -> the highest score of any detector; see `text_scores`."""
    best: dict[str, float] = {}
    for opinion in text_scores(panel, text, phase).values():
        for category, score in opinion.items():
            best[category] = max(best.get(category, 0.0), score)
    return best


def _opinion(seat: Seat, text: str, shown: Sequence[View]) -> dict[str, float]:
    if isinstance(seat.detector, Scorer):
        opinions = [seat.scores(view.text) or {} for view in seat.looks_at(shown)]
        said = [(category, float(score)) for opinion in opinions for category, score in opinion.items()]
    else:
        said = [(one.finding.category, one.finding.score) for one in seat.judge(text, shown)]
    best: dict[str, float] = {}
    for category, score in said:
        best[category] = max(best.get(category, 0.0), score)
    return best
