"""Hooks of the group ``fulmen.training.v1``: verifiers, trackers, and the events of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
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


@hookspec
def fulmen_stage_start(run: Path, stage: str) -> None:
    """Announce: a stage begins. Called by every training verb before its first step."""


@hookspec
def fulmen_step_end(run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
    """Announce: an optimizer step ended. Called at each log interval, never inside the step."""


@hookspec
def fulmen_checkpoint_saved(run: Path, stage: str, path: Path) -> None:
    """Announce: a checkpoint is whole on disk at `path`."""
