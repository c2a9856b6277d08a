"""Hooks of the group ``fulmen.exporters.v1``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import ExporterInfo


@hookspec
def fulmen_exporters() -> Iterable[ExporterInfo]:  # type: ignore[empty-body]
    """Describe the artefact formats this plugin writes.

    Called by: `fulmen export --to FORMAT`. `load` gives an `fulmen_core.backend.Exporter`.
    May go wrong: a missing export library is reported by `probe`, with the extra that installs it.
    """
