"""What this plugin registers: the detector ``secrets``. Light: the patterns are built when a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Secrets in every phase, streamed output included."""
    return [
        DetectorInfo(
            name="secrets",
            summary="keys and tokens of known services, private keys, passwords in addresses and assignments",
            phases=("corpus", "reward", "input", "output"),
            categories=("ip_secrets",),
            languages=("*",),
            cost="rules",
            load="fulmen_raise_secrets.detector:make",
        )
    ]
