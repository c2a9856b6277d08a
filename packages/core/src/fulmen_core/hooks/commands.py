"""Hooks of the group ``fulmen.commands.v1``."""

from __future__ import annotations

from collections.abc import Iterable
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
