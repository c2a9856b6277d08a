"""Hooks of the group ``fulmen.formats.v1``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import CheckpointFormatInfo


@hookspec
def fulmen_checkpoint_formats() -> Iterable[CheckpointFormatInfo]:  # type: ignore[empty-body]
    """Describe the checkpoint formats of other projects that this plugin reads.

    Called by: `fulmen import SOURCE`. `matches` tells, cheaply, whether a path is in the format; `load` reads it.
    May go wrong: a source that two formats claim is read by the first by name; `--format` chooses.
    """
