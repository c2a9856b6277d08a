"""What this plugin registers: the detector ``semantic``. Light: nothing is read until a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Of whatever categories the policy gives examples for."""
    return [
        DetectorInfo(
            name="semantic",
            summary="likeness to examples of each category, by embeddings",
            phases=("corpus", "reward", "input", "output"),
            categories=("*",),
            languages=("*",),
            cost="linear",
            load="fulmen_raise_semantic.detector:make",
        )
    ]
