"""What this plugin registers: the detector ``attack``. Light: the lexicon is read when a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Prompt attacks at input and in corpora. It judges whole texts and does not stream."""
    return [
        DetectorInfo(
            name="attack",
            summary="jailbreaks, prompt injection, prompt extraction",
            phases=("corpus", "input"),
            categories=("prompt_attack",),
            languages=("en", "zh"),
            cost="linear",
            load="fulmen_raise_attack.combined:make",
        )
    ]
