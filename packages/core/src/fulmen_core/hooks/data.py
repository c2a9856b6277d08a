"""Hooks of the group ``fulmen.data.v1``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import SourceInfo


@hookspec
def fulmen_data_sources() -> Iterable[SourceInfo]:  # type: ignore[empty-body]
    """Describe sources of documents or of task items.

    Called by: `fulmen data build` when a recipe names the source. `load` gives a callable that takes the source's
    settings as keywords and yields plain mappings: ``{"text", "source"}`` for documents, ``{"messages", "source",
    ...}`` for instructions, and ``{"fault": sentence}`` for what the source had to leave out, which is counted.
    May go wrong: a source that yields nothing is an error of the recipe (empty corpus); one that raises stops the run,
    named.
    """
