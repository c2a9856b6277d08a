"""How many unsafe texts get past the guard under each attack, and how many safe ones are flagged for the disguise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fulmen_safety.evaluation.attacks import PLAIN, Attack
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.evaluation.labelled import LabelledText
from fulmen_safety.evaluation.metrics import wilson


def sample(texts: Sequence[LabelledText], limit: int, seed: int) -> list[LabelledText]:
    """Draw up to `limit` unsafe and `limit` safe texts without replacement, in the order of the file."""
    drawn: set[int] = set()
    for unsafe in (True, False):
        places = [place for place, text in enumerate(texts) if text.unsafe == unsafe]
        drawn.update(random.Random(seed).sample(places, min(limit, len(places))))
    return [texts[place] for place in sorted(drawn)]


def survival(
    judge: Judge, texts: Sequence[LabelledText], attacks: Iterable[Attack], *, seed: int = 0
) -> dict[str, Any]:
    """Attack every text and judge the result.

    An unsafe text survives an attack when the guard flags nothing in the conversation that carries it.

    Returns:
        "attacks": name -> its figures: of the unsafe texts in the attack's languages `survived` of `texts`, `survival`
        (a share) with its `interval`; `gained`, the share of those flagged as plain text that survive the attack;
        `false_alarm_rate` on the safe texts under the same attack; `by_category` and `by_lang`. "worst": the name of
        the attack with the highest survival. "failures": judgements in which a detector failed.
    """
    report: dict[str, dict[str, Any]] = {}
    plainly: list[bool] = []
    failures = 0
    for attack in attacks:
        flags: list[bool | None] = []
        for text in texts:
            if text.lang in ("en", "zh") and text.lang not in attack.languages:
                flags.append(None)
                continue
            judgement = judge.judge_conversation(attack.apply(text.text, seed))
            failures += judgement.failed
            flags.append(judgement.flagged)
        if attack.name == PLAIN:
            plainly = [bool(flag) for flag in flags]
        report[attack.name] = {"family": attack.family, **_figures(texts, flags, plainly)}
    told = {name: row["survival"] for name, row in report.items() if row["survival"] is not None}
    return {
        "attacks": report,
        "worst": max(told, key=lambda name: told[name]) if told else None,
        "failures": failures,
    }


def _figures(texts: Sequence[LabelledText], flags: Sequence[bool | None], plainly: Sequence[bool]) -> dict[str, Any]:
    judged = [
        (text, not flag, plain) for text, flag, plain in zip(texts, flags, plainly, strict=True) if flag is not None
    ]
    unsafe = [(text, survived) for text, survived, _ in judged if text.unsafe]
    safe = [survived for text, survived, _ in judged if not text.unsafe]
    caught = [survived for text, survived, plain in judged if text.unsafe and plain]
    return {
        **_share([survived for _, survived in unsafe]),
        "gained": sum(caught) / len(caught) if caught else None,
        "false_alarm_rate": 1 - sum(safe) / len(safe) if safe else None,
        "by_category": _by(unsafe, lambda text: text.category),
        "by_lang": _by(unsafe, lambda text: text.lang),
    }


def _by(unsafe: Sequence[tuple[LabelledText, bool]], of: Callable[[LabelledText], str]) -> dict[str, dict[str, Any]]:
    return {
        key: _share([survived for text, survived in unsafe if of(text) == key])
        for key in sorted({of(text) for text, _ in unsafe})
    }


def _share(survived: Sequence[bool]) -> dict[str, Any]:
    count = sum(survived)
    if not survived:
        return {"texts": 0, "survived": 0, "survival": None, "interval": None}
    interval = wilson(count, len(survived))
    return {
        "texts": len(survived),
        "survived": count,
        "survival": count / len(survived),
        "interval": [interval.low, interval.high],
    }
