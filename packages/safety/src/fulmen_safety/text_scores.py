"""How suspect a text is, category by category, also where no policy would act: what ranks texts and fills the scores
of a moderation result."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fulmen_safety.detector import Detector, Scorer
from fulmen_safety.normalise import View, views
from fulmen_safety.panel import Panel

log = logging.getLogger(__name__)


def text_scores(panel: Panel, text: str, phase: str) -> dict[str, dict[str, float]]:
    """Return detector -> category -> its highest score, in [0, 1], over the views of `text`.

    A detector that has an opinion of every text (`Scorer`) is asked for it; of another its findings count, also those
    below the policy's threshold. Categories of which a detector says nothing are left out, and so are detectors that
    raise: what a failure means is the verdict's to say. Runs without a deadline.
    """
    shown = views(text)
    opinions = {}
    for detector in panel.detectors(phase):
        try:
            opinions[detector.name] = _opinion(detector, shown)
        except Exception as error:
            log.warning("detector %r gave no scores: %s: %s", detector.name, type(error).__name__, error)
    return opinions


def category_scores(panel: Panel, text: str, phase: str) -> dict[str, float]:
    """Return category -> the highest score of any detector; see `text_scores`."""
    best: dict[str, float] = {}
    for opinion in text_scores(panel, text, phase).values():
        for category, score in opinion.items():
            best[category] = max(best.get(category, 0.0), score)
    return best


def _opinion(detector: Detector, shown: Sequence[View]) -> dict[str, float]:
    best: dict[str, float] = {}
    for view in shown:
        if isinstance(detector, Scorer):
            said = [(category, float(score)) for category, score in detector.scores(view.text).items()]
        else:
            said = [(finding.category, finding.score) for finding in detector.scan(view.text)]
        for category, score in said:
            best[category] = max(best.get(category, 0.0), score)
    return best
