"""What RAISE registers: the guard, its verb and the two detectors that need no plugin. Light: everything is a dotted
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
    """The detectors that need no plugin: the policy's own words, and a check of an answer's sums."""
    return [
        DetectorInfo(
            name="terms",
            summary="words and phrases that the policy lists, each under a category",
            phases=("corpus", "reward", "input", "output"),
            categories=("*",),
            languages=("*",),
            cost="rules",
            load="fulmen_safety.terms:make",
        ),
        DetectorInfo(
            name="arithmetic",
            summary="sums in an answer that do not hold, unless the question has them",
            phases=("reward", "output"),
            categories=("specialized_advice",),
            languages=("*",),
            cost="rules",
            load="fulmen_safety.arithmetic:make",
        ),
    ]


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `fulmen raise`."""
    return [CommandInfo("raise", "check a text, show and lint a safety policy", "fulmen_safety.cli.entry:run")]
