"""What this plugin registers: the detector ``pii``. Light: the patterns are built when a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Personal data in every phase, streamed output included."""
    return [
        DetectorInfo(
            name="pii",
            summary="e-mail, phone, identity, bank and network numbers, with check digits",
            phases=("corpus", "reward", "input", "output"),
            categories=("privacy_pii",),
            languages=("en", "zh"),
            cost="rules",
            load="fulmen_raise_pii.detector:make",
        )
    ]
