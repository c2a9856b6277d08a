"""What the kit registers: the verb `fulmen conform`. Light: pytest is imported when it is called."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb of the kit."""
    return [
        CommandInfo("conform", "hold a backend or a detector against its contract", "fulmen_testing.cli.conform:run")
    ]
