"""What this plugin registers: ``harm`` and ``harm-answer``. Light: a model is read when a policy names it."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl

CATEGORIES = (
    "child_exploitation", "code_abuse", "defamation_honour", "hate_discrimination", "ip_secrets", "nonviolent_crime",
    "political_national", "privacy_pii", "self_harm", "sex_crime", "sexual_content", "specialized_advice",
    "violent_crime", "weapons_cbrne",
)  # fmt: skip


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Harmful requests as whole texts, harmful answers as they are written."""
    return [
        DetectorInfo(
            name="harm",
            summary="requests that ask for harm, by category",
            phases=("corpus", "input"),
            categories=CATEGORIES,
            languages=("en", "zh"),
            cost="linear",
            load="fulmen_raise_harm.detector:make",
        ),
        DetectorInfo(
            name="harm-answer",
            summary="answers that comply with a harmful request, by category",
            phases=("reward", "output"),
            categories=CATEGORIES,
            languages=("en", "zh"),
            cost="linear",
            load="fulmen_raise_harm.detector:make_answer",
        ),
    ]
