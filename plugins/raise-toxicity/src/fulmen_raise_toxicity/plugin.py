"""What this plugin registers: ``toxicity``, ``toxicity-answer``, ``bias`` and ``profanity``. Light: what they need is
read when a policy names them.
"""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """Hateful and offensive language, in whole texts and in what is being written; stereotypes; profane words."""
    learned = [
        DetectorInfo(
            name=name,
            summary=f"hateful and offensive language in {where}",
            phases=phases,
            categories=("hate_discrimination",),
            languages=("en", "zh"),
            cost="linear",
            load=f"fulmen_raise_toxicity.detector:{make}",
        )
        for name, where, phases, make in (
            ("toxicity", "whole texts", ("corpus", "input"), "make"),
            ("toxicity-answer", "answers as they are written", ("reward", "output"), "make_answer"),
        )
    ]
    bias = DetectorInfo(
        name="bias",
        summary="stereotypes: what a sentence says of all of a protected group",
        phases=("corpus", "reward", "output"),
        categories=("hate_discrimination",),
        languages=("en", "zh"),
        cost="rules",
        load="fulmen_raise_toxicity.bias:make",
    )
    profanity = DetectorInfo(
        name="profanity",
        summary="profane, insulting and sexual words and slurs, by a list",
        phases=("corpus", "input", "reward", "output"),
        categories=("hate_discrimination",),
        languages=("en",),
        cost="rules",
        load="fulmen_raise_toxicity.profanity:make",
    )
    return [*learned, bias, profanity]
