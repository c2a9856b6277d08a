"""What this plugin registers: the detector ``quality`` and its verb. Light: everything is a dotted path until used."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo
from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """The scorers of the corpus: of documents, and of nothing that people say."""
    return [
        DetectorInfo(
            name="quality",
            summary="repetition, boilerplate, garbled and unusual text in documents",
            phases=("corpus",),
            categories=("low_quality",),
            languages=("en", "zh"),
            cost="linear",
            load="fulmen_raise_quality.detector:make",
        )
    ]


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `fulmen raise quality`."""
    return [
        CommandInfo(
            "raise-quality", "train a scorer of quality, measure a corpus", "fulmen_raise_quality.cli.entry:run"
        )
    ]
