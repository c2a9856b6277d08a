"""What this plugin registers: the detectors ``pii`` and ``pii-names``. Light: they are built when a policy names
them."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Personal data in every phase, streamed output included."""
    return [
        DetectorInfo(
            name="pii",
            summary="e-mail, phone, identity, bank and network numbers with check digits, addresses, dates of birth",
            phases=("corpus", "reward", "input", "output"),
            categories=("privacy_pii",),
            languages=("en", "zh"),
            cost="rules",
            load="fulmen_raise_pii.detector:make",
        ),
        DetectorInfo(
            name="pii-names",
            summary="names of people, addresses, places, organisations, by a learned tagger",
            phases=("corpus", "reward", "input", "output"),
            categories=("privacy_pii",),
            languages=("en", "zh"),
            cost="linear",
            load="fulmen_raise_pii.names:make",
        ),
    ]
