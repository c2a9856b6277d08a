"""What the distribution registers: its verb, as a dotted path."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb."""
    return [CommandInfo("serve-ray", "serve a model with several replicas on Ray", "fulmen_serving_ray.cli:run")]
