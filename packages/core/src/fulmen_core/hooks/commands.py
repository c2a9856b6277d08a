"""Hooks of the group ``fulmen.commands.v1``, and the server's and exporter's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import CommandInfo


@hookspec
def fulmen_commands() -> Iterable[CommandInfo]:  # type: ignore[empty-body]
    """Describe verbs of the `fulmen` command.

    Called by: the command line, when a verb is not built in. The entry point's *name* must equal the verb, so that one
    verb imports one plugin. `load` gives ``run(argv: Sequence[str]) -> int``.
    """


@hookspec
def fulmen_request_done(record: Mapping[str, object]) -> None:
    """Announce: a served request ended, with its usage, latencies and verdicts (no text)."""


@hookspec
def fulmen_export_done(directory: Path, manifest: Mapping[str, object]) -> None:
    """Announce: an artefact is whole in `directory`."""
