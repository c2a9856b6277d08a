"""What this plugin registers: the detectors ``judge`` and ``judge-answer``. Light: no server is asked until a policy
names one."""

from __future__ import annotations

from fulmen_safety import DetectorInfo, hookimpl
from fulmen_safety.taxonomy import taxonomy


@hookimpl
def fulmen_raise_detectors() -> list[DetectorInfo]:
    """One for what users say and documents hold, one for what the model answers: the model is asked differently."""
    coded = tuple(code for code in taxonomy().titles if taxonomy().codes("llama_guard", code))
    return [
        DetectorInfo(
            name="judge",
            summary="a chat model's verdict on what a user says or a document holds",
            phases=("corpus", "input"),
            categories=coded,
            languages=("*",),
            cost="model",
            load="fulmen_raise_judge.detector:make",
        ),
        DetectorInfo(
            name="judge-answer",
            summary="a chat model's verdict on an answer, with the conversation where there is one",
            phases=("reward", "output"),
            categories=coded,
            languages=("*",),
            cost="model",
            load="fulmen_raise_judge.detector:make_answer",
        ),
    ]
