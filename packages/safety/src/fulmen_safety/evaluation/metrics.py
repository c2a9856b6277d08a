"""Measures of a detector on labelled texts, each with a 95 % interval. Unsafe is the positive class.

Scores come as two arrays, of the unsafe and of the safe texts: float, any scale, higher means more suspect, ties
allowed and common (a detector that finds nothing gives all the same score). A text is flagged at a threshold v when
its score is *above* v; so no tie is ever broken, and a rate that cannot be had is not reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]

#: Two-sided 95 % of the standard normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many texts were decided how."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def of(cls, flagged_unsafe: ArrayLike, flagged_safe: ArrayLike) -> Confusion:
        """Count from the decisions (boolean, True is flagged) on the unsafe and on the safe texts."""
        unsafe, safe = np.asarray(flagged_unsafe, bool), np.asarray(flagged_safe, bool)
        hits, alarms = int(unsafe.sum()), int(safe.sum())
        return cls(hits, alarms, unsafe.size - hits, safe.size - alarms)

    @property
    def errors(self) -> int:
        """Texts decided wrongly."""
        return self.false_positives + self.false_negatives

    @property
    def precision(self) -> float:
        """Share of unsafe among the flagged; 0 if nothing is flagged."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of flagged among the unsafe; 0 if there is none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_alarm_rate(self) -> float:
        """Share of flagged among the safe; 0 if there is none."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if there is no true positive."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.errors)


def auc(unsafe: ArrayLike, safe: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that an unsafe text scores above a safe one, ties counting half.

    Raises:
        ValueError: one of the two is empty, or holds something that is not a finite number.
    """
    positives, negatives = _scores(unsafe, "unsafe"), np.sort(_scores(safe, "safe"))
    below = np.searchsorted(negatives, positives, "left")
    not_above = np.searchsorted(negatives, positives, "right")
    return float((below + not_above).sum() / (2.0 * positives.size * negatives.size))


def threshold_at_fpr(safe: ArrayLike, max_fpr: float) -> float:
    """Return the lowest threshold v at which at most `max_fpr` of the safe texts score above v.

    ``-inf`` if all may be flagged.

    Raises:
        ValueError: there are no safe texts, or `max_fpr` is not in [0, 1].
    """
    negatives = np.sort(_scores(safe, "safe"))[::-1]
    if not 0.0 <= max_fpr <= 1.0:
        raise ValueError(f"a false positive rate of {max_fpr}")
    allowed = math.floor(max_fpr * negatives.size + 1e-9)  # 0.29 * 100 is 28.999999999999996
    return float(negatives[allowed]) if allowed < negatives.size else -math.inf


def recall_at_fpr(unsafe: ArrayLike, safe: ArrayLike, max_fpr: float) -> float:
    """Return the share of unsafe texts above `threshold_at_fpr` of the safe ones.

    Raises:
        ValueError: one of the two is empty, or `max_fpr` is not in [0, 1].
    """
    return float((_scores(unsafe, "unsafe") > threshold_at_fpr(safe, max_fpr)).mean())


def f1_at(unsafe: ArrayLike, safe: ArrayLike, threshold: float) -> float:
    """Return F1 when every text that scores `threshold` or more is flagged, as a policy's thresholds do."""
    return Confusion.of(np.asarray(unsafe) >= threshold, np.asarray(safe) >= threshold).f1


def best_f1(unsafe: ArrayLike, safe: ArrayLike) -> tuple[float, float]:
    """Return the highest F1 that any threshold gives, and the lowest such threshold (flagged is ``score >= it``).

    For choosing a threshold on a development set; never to be reported of the set it was chosen on.

    Raises:
        ValueError: there are no unsafe texts.
    """
    positives, negatives = np.sort(_scores(unsafe, "unsafe")), np.sort(np.asarray(safe, np.float64))
    candidates = np.unique(np.concatenate((positives, negatives)))
    hits = positives.size - np.searchsorted(positives, candidates, "left")
    alarms = negatives.size - np.searchsorted(negatives, candidates, "left")
    values = 2.0 * hits / (positives.size + hits + alarms)  # 2 TP + FP + FN = (TP + FN) + (TP + FP)
    best = int(values.argmax())
    return float(values[best]), float(candidates[best])


def wilson(successes: int, trials: int) -> Interval:
    """Return Wilson's score interval of a share, which holds its level for small samples and shares near 0 and 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    share, z2 = successes / trials, _Z95**2 / trials
    middle = share + z2 / 2
    spread = math.sqrt(share * (1 - share) * z2 + z2 * z2 / 4)
    low = 0.0 if successes == 0 else (middle - spread) / (1 + z2)
    high = 1.0 if successes == trials else (middle + spread) / (1 + z2)
    return Interval(low, high)


def bootstrap(
    statistic: Callable[[Any, Any], float],
    unsafe: ArrayLike,
    safe: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Interval:
    """Return the percentile bootstrap interval of ``statistic(unsafe, safe)``, each class drawn anew from itself.

    Args:
        statistic: e.g. `auc`; gets arrays of the sizes given.
        unsafe: one value a text, scores or decisions.
        safe: likewise.
        seed: the same seed gives the same interval.
        resamples: draws; the cost is that of as many statistics.
    """
    positives, negatives = np.asarray(unsafe), np.asarray(safe)
    random = np.random.default_rng(seed)
    values = [
        statistic(random.choice(positives, positives.size), random.choice(negatives, negatives.size))
        for _ in range(resamples)
    ]
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _scores(given: ArrayLike, what: str) -> Scores:
    scores: Scores = np.asarray(given, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"no scores of {what} texts")
    if not np.isfinite(scores).all():
        raise ValueError(f"a score of the {what} texts is not a finite number")
    return scores
