"""What this plugin registers: the detector ``probe`` and its verb. Light: torch is imported where a model is loaded."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Of whatever categories the head was trained for."""
    return [
        DetectorInfo(
            name="probe",
            summary="a linear head on a model's own hidden states",
            phases=("corpus", "reward", "input", "output"),
            categories=("*",),
            languages=("*",),
            cost="model",
            load="fulmen_raise_probe.detector:make",
        )
    ]


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `fulmen raise probe`."""
    return [CommandInfo("raise-probe", "train a probe on a model's hidden states", "fulmen_raise_probe.cli.entry:run")]
