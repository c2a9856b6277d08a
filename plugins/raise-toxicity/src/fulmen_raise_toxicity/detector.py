"""The detectors ``toxicity``, of whole texts, and ``toxicity-answer``, of streams, by one model."""

from __future__ import annotations

from collections.abc import Mapping

from fulmen_safety.learned.loading import prefix_detector, window_detector
from fulmen_safety.learned.prefix_detector import PrefixDetector
from fulmen_safety.learned.window_detector import WindowDetector


def make(settings: Mapping[str, object]) -> WindowDetector:
    """Make the detector of whole texts. Raises `UserError` for a setting that it does not know."""
    return window_detector("toxicity", "fulmen_raise_toxicity", "toxicity", settings)


def make_answer(settings: Mapping[str, object]) -> PrefixDetector:
    """Make the detector of streams. Raises `UserError` for a setting that it does not know."""
    return prefix_detector("toxicity-answer", "fulmen_raise_toxicity", "toxicity", settings)
