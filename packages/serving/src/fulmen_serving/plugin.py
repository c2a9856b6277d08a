"""What serving registers: its verbs. Light: everything is a dotted path until it is used."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verbs of serving."""
    return [
        CommandInfo("serve", "serve a model behind the OpenAI-compatible API", "fulmen_serving.cli.serve:run"),
        CommandInfo("keys", "make, list and revoke the API keys of a server", "fulmen_serving.cli.keys:run"),
        CommandInfo("usage", "show what keys have used and what it costs", "fulmen_serving.cli.usage:run"),
        CommandInfo("chat", "talk to a model in the terminal", "fulmen_serving.cli.chat:run"),
        CommandInfo("bench", "measure a server under load", "fulmen_serving.cli.bench:run"),
    ]
