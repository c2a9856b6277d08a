"""The data card: what a model was made of, and how well it told texts apart that it was not trained on.

Legend: R rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.evaluation import metrics
from fulmen_safety.language import LANGUAGES, language_of
from fulmen_safety.learned.rows import Row

#: Rows, or groups of rows, of a label below which nothing can be learned and no figure given.
FEWEST = 20


def sources(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how many rows of each label came from where, under which licence."""
    counted = Counter((row.source, row.licence, row.unsafe) for row in rows)
    names = sorted({(source, licence) for source, licence, _ in counted})
    return [
        {"source": source, "licence": licence}
        | {label: counted[source, licence, unsafe] for label, unsafe in (("unsafe", True), ("safe", False))}
        for source, licence in names
    ]


def figures(
    rows: Sequence[Row], probability_R: NDArray[np.float64], chosen_R: NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """Return the figures of the chosen rows per language, and for each source the share that is flagged at the
    thresholds of 1 and 5 % false alarms in its language.
    """
    told: dict[str, Any] = {"by_lang": {}, "by_source": {}}
    unsafe_R = np.array([row.unsafe for row in rows])
    language_R = np.array([language_of(row.text) for row in rows])
    source_R = np.array([row.source for row in rows])
    for language in LANGUAGES:
        ours = chosen_R & (language_R == language)
        bad, good = probability_R[ours & unsafe_R], probability_R[ours & ~unsafe_R]
        if min(len(bad), len(good)) < FEWEST:
            continue
        thresholds = {rate: metrics.threshold_at_fpr(good, rate) for rate in (0.01, 0.05)}
        f1, best = metrics.best_f1(bad, good)
        told["by_lang"][language] = {
            "unsafe": len(bad),
            "safe": len(good),
            "auc": round(metrics.auc(bad, good), 4),
            "f1_at_half": round(metrics.f1_at(bad, good, 0.5), 4),
            "best_f1": round(f1, 4),
            "best_threshold": round(best, 4),
        }
        for rate, threshold in thresholds.items():
            interval = metrics.bootstrap(partial(_recall, rate), bad, good, seed=seed, resamples=200)
            told["by_lang"][language][f"recall_at_fpr_{rate:.0%}"] = {
                "recall": round(metrics.recall_at_fpr(bad, good, rate), 4),
                "interval": [round(interval.low, 4), round(interval.high, 4)],
                "threshold": round(float(threshold), 4),
            }
        for source in sorted(set(source_R[ours].tolist())):
            for label, side in (("unsafe", unsafe_R), ("safe", ~unsafe_R)):
                some = probability_R[ours & side & (source_R == source)]
                if len(some):
                    told["by_source"][f"{source} ({language}, {label})"] = {
                        "rows": len(some),
                        **{f"flagged_at_fpr_{rate:.0%}": round(float((some > at).mean()), 4)
                           for rate, at in thresholds.items()},
                    }  # fmt: skip
    return told


def _recall(rate: float, unsafe: Any, safe: Any) -> float:
    return metrics.recall_at_fpr(unsafe, safe, rate)


def category_figures(rows: Sequence[Row], guessed: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return how often the likeliest category of an unsafe text is one of its own."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for place, category in guessed:
        for own in rows[place].categories:
            right[own].append(category in rows[place].categories)
    return {
        name: {"rows": len(hits), "recall": round(sum(hits) / len(hits), 4)} for name, hits in sorted(right.items())
    }
