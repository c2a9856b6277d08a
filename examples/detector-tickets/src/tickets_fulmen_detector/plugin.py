"""What this distribution registers. Light: the detector is imported when a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """The detector, and what it declares: a policy can ask for no more."""
    return [
        DetectorInfo(
            name="tickets",
            summary="ticket numbers of the internal tracker",
            phases=("corpus", "reward", "input", "output"),
            categories=("ip_secrets",),
            languages=("en", "zh"),
            cost="rules",
            load="tickets_fulmen_detector.detector:make",
        )
    ]
