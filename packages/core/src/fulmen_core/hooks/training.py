"""Hooks of the group ``fulmen.training.v1``: verifiers and trackers; the events are in `fulmen_core.hooks.events`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import TrackerInfo, VerifierInfo


@hookspec
def fulmen_verifiers() -> Iterable[VerifierInfo]:  # type: ignore[empty-body]
    """Describe verifiers: callables ``score(answer: str, item: Mapping) -> float`` in [0, 1].

    Called by: task evaluation and the making of preference pairs.
    May go wrong: a verifier that raises fails the step; a missing score would train the wrong objective.
    """


@hookspec
def fulmen_trackers() -> Iterable[TrackerInfo]:  # type: ignore[empty-body]
    """Describe trackers of training measurements. A JSONL tracker is always on; others are named by the recipe."""
