"""The detectors ``harm`` and ``harm-answer``: the shipped models, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping

from fulmen_safety.learned.loading import prefix_detector, window_detector
from fulmen_safety.learned.prefix_detector import PrefixDetector
from fulmen_safety.learned.window_detector import WindowDetector


def make(settings: Mapping[str, object]) -> WindowDetector:
    """Make the detector of harmful requests. Raises `UserError` for a setting that it does not know."""
    return window_detector("harm", "fulmen_raise_harm", "harm", settings)


def make_answer(settings: Mapping[str, object]) -> PrefixDetector:
    """Make the detector of harmful answers. Raises `UserError` for a setting that it does not know."""
    return prefix_detector("harm-answer", "fulmen_raise_harm", "harm_answer", settings)
