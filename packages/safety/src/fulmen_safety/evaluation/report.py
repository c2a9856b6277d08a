"""The figures of `fulmen raise eval`: of all texts, by category and by language, each with its interval.

What a set cannot tell is None, and `reasons` says why: a file of unsafe texts alone has a recall and no false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.evaluation.judging import Judge, Judgement
from fulmen_safety.evaluation.labelled import LabelledText
from fulmen_safety.evaluation.metrics import (
    Confusion,
    Interval,
    Scores,
    auc,
    bootstrap,
    recall_at_fpr,
    threshold_at_fpr,
    wilson,
)

#: The rates of false alarms at which recall is told.
RATES = {"recall_at_fpr_1pct": 0.01, "recall_at_fpr_5pct": 0.05}

Pairs = Sequence[tuple[LabelledText, Judgement]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Texts with what the guard made of them. `negatives` is a file of its own, from which false alarms are counted
    and thresholds taken; None: the safe texts of the data serve."""

    data: Pairs
    negatives: Pairs | None = None

    @property
    def unsafe(self) -> Pairs:
        """The unsafe texts."""
        return [pair for pair in self.data if pair[0].unsafe]

    @property
    def safe(self) -> Pairs:
        """The safe texts of the data itself."""
        return [pair for pair in self.data if not pair[0].unsafe]

    @property
    def ordinary(self) -> Pairs:
        """The safe texts on which false alarms are counted."""
        return self.safe if self.negatives is None else self.negatives

    def of_language(self, lang: str) -> Judged:
        """Return the texts of one language."""
        negatives = None if self.negatives is None else [pair for pair in self.negatives if pair[0].lang == lang]
        return Judged([pair for pair in self.data if pair[0].lang == lang], negatives)


def judge_all(judge: Judge, texts: Sequence[LabelledText]) -> Pairs:
    """Judge each text. The first is judged twice: what a detector loads on its first call is no latency."""
    if texts:
        judge.judge(texts[0].text, texts[0].prompt)
    return [(one, judge.judge(one.text, one.prompt)) for one in texts]


def evaluate(judged: Judged, *, seed: int = 0, resamples: int = 500) -> dict[str, Any]:
    """Return the whole report, as JSON shows it."""
    everything = [*judged.data, *(judged.negatives or ())]
    languages = sorted({text.lang for text, _ in judged.data})
    return {
        **measures(judged, seed=seed, resamples=resamples),
        "by_category": by_category(judged),
        "by_lang": {lang: measures(judged.of_language(lang), seed=seed, resamples=resamples) for lang in languages},
        **latency(everything),
        "failures": sum(judgement.failed for _, judgement in everything),
    }


def measures(judged: Judged, *, seed: int, resamples: int) -> dict[str, Any]:
    """Return the measures of one set.

    AUC and F1 are of the data's own two classes; of a file of unsafe texts alone they are against the negatives.
    """
    unsafe, ordinary = judged.unsafe, judged.ordinary
    contrast = judged.safe or ordinary
    found: dict[str, Any] = {"unsafe": len(unsafe), "safe": len(judged.safe), "negatives": len(ordinary)}
    intervals: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}

    def tell(name: str, value: float | None, interval: Interval | None, reason: str = "") -> None:
        found[name] = value
        if interval is not None:
            intervals[name] = [interval.low, interval.high]
        if value is None:
            reasons[name] = reason

    def of_two(name: str, statistic: Callable[[Any, Any], float], one: Any, other: Any, trials: int = 0) -> None:
        if len(one) and len(other):
            value = statistic(one, other)
            interval = bootstrap(statistic, one, other, seed=seed, resamples=resamples)
            if trials:  # of a share: where all are hits, no resample has a miss
                interval = _hull(interval, wilson(round(value * trials), trials))
            tell(name, value, interval)
        else:
            tell(name, None, None, f"there are no {'safe' if len(one) else 'unsafe'} texts")

    def share(name: str, decisions: Flags, kind: str) -> None:
        if len(decisions):
            tell(name, float(decisions.mean()), wilson(int(decisions.sum()), len(decisions)))
        else:
            tell(name, None, None, f"there are no {kind} texts")

    of_two("auc", auc, _scores(unsafe), _scores(contrast))
    for name, rate in RATES.items():
        of_two(name, partial(recall_at_fpr, max_fpr=rate), _scores(unsafe), _scores(ordinary), len(unsafe))
    of_two("f1", _f1, _flags(unsafe), _flags(contrast))
    flagged = int(_flags(unsafe).sum() + _flags(contrast).sum())
    of_two("precision", _precision, _flags(unsafe), _flags(contrast), flagged)
    share("recall", _flags(unsafe), "unsafe")
    share("false_alarm_rate", _flags(ordinary), "safe")
    share("refused", _refusals(unsafe), "unsafe")
    share("over_refusal", _refusals(judged.safe), "safe")
    return {**found, "intervals": intervals, "reasons": reasons}


def by_category(judged: Judged) -> dict[str, dict[str, Any]]:
    """Return for each category of the data its own recall, at the policy's threshold and at those of the whole set's
    rates of false alarms; and, of its safe texts, the false alarms."""
    ordinary = _scores(judged.ordinary)
    report: dict[str, dict[str, Any]] = {}
    for category in sorted({text.category for text, _ in judged.data}):
        unsafe = [pair for pair in judged.unsafe if pair[0].category == category]
        safe = [pair for pair in judged.safe if pair[0].category == category]
        shares = {"recall": _flags(unsafe), "false_alarm_rate": _flags(safe)}
        if len(ordinary):
            for name, rate in RATES.items():
                shares[name] = _scores(unsafe) > threshold_at_fpr(ordinary, rate)
        report[category] = {
            "unsafe": len(unsafe),
            "safe": len(safe),
            "auc": auc(_scores(unsafe), ordinary) if unsafe and len(ordinary) else None,
            **dict.fromkeys(RATES),
            **{name: float(flags.mean()) if len(flags) else None for name, flags in shares.items()},
            "intervals": {
                name: [(interval := wilson(int(flags.sum()), len(flags))).low, interval.high]
                for name, flags in shares.items()
                if len(flags)
            },
        }
    return report


def latency(pairs: Pairs) -> dict[str, Any]:
    """Return the guard's time per text: the mean and percentiles, milliseconds."""
    times = np.array([judgement.milliseconds for _, judgement in pairs])
    percentiles = dict(zip(("p50", "p95", "p99", "max"), np.percentile(times, (50, 95, 99, 100)).tolist(), strict=True))
    return {"ms_per_item": float(times.mean()), "ms": percentiles}


def _hull(one: Interval, other: Interval) -> Interval:
    return Interval(min(one.low, other.low), max(one.high, other.high))


def _scores(pairs: Pairs) -> Scores:
    return np.array([judgement.score for _, judgement in pairs], np.float64)


def _flags(pairs: Pairs) -> Flags:
    return np.array([judgement.flagged for _, judgement in pairs], bool)


def _refusals(pairs: Pairs) -> Flags:
    return np.array([judgement.refused for _, judgement in pairs], bool)


def _f1(unsafe: Flags, safe: Flags) -> float:
    return Confusion.of(unsafe, safe).f1


def _precision(unsafe: Flags, safe: Flags) -> float:
    return Confusion.of(unsafe, safe).precision
