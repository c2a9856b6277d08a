"""Events: hooks that announce and return nothing, heard by every plugin in use and by those of ``fulmen.events.v1``.

A plugin of another group hears events once something of it was used. A plugin that only listens declares itself in the
group ``fulmen.events.v1``, and is loaded at the first event. May go wrong: a listener that raises is logged with its
name and is no longer called after three faults; the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fulmen_core.hooks import hookspec


@hookspec
def fulmen_stage_start(run: Path, stage: str) -> None:
    """Announce: a stage begins. Called by every training verb before its first step."""


@hookspec
def fulmen_step_end(run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
    """Announce: an optimizer step ended. Called at each log interval, never inside the step."""


@hookspec
def fulmen_checkpoint_saved(run: Path, stage: str, path: Path) -> None:
    """Announce: a checkpoint is whole on disk at `path`."""


@hookspec
def fulmen_request_done(record: Mapping[str, object]) -> None:
    """Announce: a served request ended, with its usage, latencies and verdicts (no text)."""


@hookspec
def fulmen_export_done(directory: Path, manifest: Mapping[str, object]) -> None:
    """Announce: an artefact is whole in `directory`."""
