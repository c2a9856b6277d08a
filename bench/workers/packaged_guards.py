"""Packaged guards in an environment of their own: texts in on stdin, their scores and decisions out on stdout.

    python packaged_guards.py < texts.json > answers.json

The input is a JSON list of texts. The output is name -> {"scores", "flags", "ms"}, an entry a text each; of a package
that is not installed, name -> {"absent": reason}. One text at a time, as a guard is asked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Guard = Callable[[str], tuple[float, bool]]


def profanity_check() -> Guard:
    """alt-profanity-check: a linear SVM over words, English."""
    from profanity_check import predict_prob

    def judge(text: str) -> tuple[float, bool]:
        score = float(predict_prob([text])[0])
        return score, score >= 0.5  # what its `predict` does

    return judge


def better_profanity() -> Guard:
    """better_profanity: a list of words and their leetspeak, English."""
    from better_profanity import profanity

    profanity.load_censor_words()

    def judge(text: str) -> tuple[float, bool]:
        found = bool(profanity.contains_profanity(text))
        return float(found), found

    return judge


def securevector() -> Guard:
    """securevector-guardian-model: prompt attacks, in pure Python."""
    from svguardian import resolve_runtime
    from svguardian.model.pure_infer import PureGuardian
    from svguardian.serve import analyze

    guardian = PureGuardian.load(resolve_runtime())

    def judge(text: str) -> tuple[float, bool]:
        found = analyze(text, guardian)
        flagged = bool(found["is_threat"])
        confidence = float(found["confidence"])
        return (confidence if flagged else 1.0 - confidence), flagged

    return judge


GUARDS: dict[str, Callable[[], Guard]] = {
    "alt-profanity-check": profanity_check,
    "better_profanity": better_profanity,
    "securevector-guardian-model": securevector,
}


def main() -> int:
    """Judge every text with every package."""
    texts = json.load(sys.stdin)
    report: dict[str, dict[str, Any]] = {}
    for name, load in GUARDS.items():
        try:
            judge = load()
        except ImportError as error:
            report[name] = {"absent": str(error)}
            continue
        judge("hello")  # what is loaded on the first call is no latency
        rows = []
        for text in texts:
            began = time.perf_counter()
            score, flagged = judge(text)
            rows.append((score, flagged, (time.perf_counter() - began) * 1000))
        scores, flags, times = zip(*rows, strict=True) if rows else ((), (), ())
        report[name] = {"scores": scores, "flags": flags, "ms": times}
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
