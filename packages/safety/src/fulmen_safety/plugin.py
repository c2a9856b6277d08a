"""What RAISE registers: the guard, its verb and the detector of configured terms. Light: everything is a dotted
path."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo, DetectorInfo, GuardInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_guards() -> list[GuardInfo]:
    """The whole of RAISE under one policy file."""
    return [GuardInfo("raise", "one policy over corpus, reward, input and streamed output", "fulmen_safety.guard:make")]


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """The one detector that needs no plugin: the policy's own words."""
    return [
        DetectorInfo(
            name="terms",
            summary="words and phrases that the policy lists, each under a category",
            phases=("corpus", "reward", "input", "output"),
            categories=("*",),
            languages=("*",),
            cost="rules",
            load="fulmen_safety.terms:make",
        )
    ]


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `fulmen raise`."""
    return [CommandInfo("raise", "check a text, show and lint a safety policy", "fulmen_safety.cli.entry:run")]
