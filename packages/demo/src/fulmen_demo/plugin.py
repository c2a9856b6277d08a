"""What the demo registers: its verb."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `demo`."""
    return [CommandInfo("demo", "run the whole road on this machine, with a report", "fulmen_demo.cli:run")]
