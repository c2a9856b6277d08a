"""The measures against scikit-learn on fresh random scores with many ties, and against what can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fulmen_safety.evaluation.metrics import (
    Confusion,
    auc,
    best_f1,
    bootstrap,
    f1_at,
    recall_at_fpr,
    threshold_at_fpr,
    wilson,
)

SETS = 40


@pytest.fixture(params=range(SETS))
def scores(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Unsafe and safe scores, from all-different to nearly all tied."""
    random = np.random.default_rng()
    unsafe = random.beta(3, 2, random.integers(1, 400))
    safe = random.beta(2, 3, random.integers(1, 400))
    steps = random.choice([1, 2, 5, 20, 10**9])
    return np.round(unsafe * steps) / steps, np.round(safe * steps) / steps


def labelled(unsafe: np.ndarray, safe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as scikit-learn takes them."""
    return np.r_[np.ones(unsafe.size), np.zeros(safe.size)], np.r_[unsafe, safe]


def test_auc_is_that_of_scikit_learn(scores: tuple[np.ndarray, np.ndarray]) -> None:
    assert auc(*scores) == pytest.approx(sklearn_metrics.roc_auc_score(*labelled(*scores)), abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.0, 0.01, 0.05, 0.29, 1.0])
def test_recall_is_the_highest_point_of_the_roc_curve_within_the_rate(
    scores: tuple[np.ndarray, np.ndarray], max_fpr: float
) -> None:
    fpr, tpr, _ = sklearn_metrics.roc_curve(*labelled(*scores), drop_intermediate=False)
    assert recall_at_fpr(*scores, max_fpr) == pytest.approx(tpr[fpr <= max_fpr + 1e-12].max(), abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.0, 0.01, 0.05, 0.5])
def test_the_threshold_of_a_rate_keeps_it_and_no_lower_one_does(
    scores: tuple[np.ndarray, np.ndarray], max_fpr: float
) -> None:
    _, safe = scores
    threshold = threshold_at_fpr(safe, max_fpr)
    assert (safe > threshold).mean() <= max_fpr + 1e-12
    assert (safe > np.nextafter(threshold, -math.inf)).mean() > max_fpr


def test_confusion_is_that_of_scikit_learn(scores: tuple[np.ndarray, np.ndarray]) -> None:
    labels, values = labelled(*scores)
    flagged = values >= 0.5
    counted = Confusion.of(flagged[labels == 1], flagged[labels == 0])
    matrix = sklearn_metrics.confusion_matrix(labels, flagged, labels=[0, 1])
    assert [
        [counted.true_negatives, counted.false_positives],
        [counted.false_negatives, counted.true_positives],
    ] == matrix.tolist()
    assert counted.f1 == pytest.approx(sklearn_metrics.f1_score(labels, flagged, zero_division=0), abs=1e-12)
    assert counted.precision == pytest.approx(
        sklearn_metrics.precision_score(labels, flagged, zero_division=0), abs=1e-12
    )
    assert counted.recall == pytest.approx(sklearn_metrics.recall_score(labels, flagged), abs=1e-12)
    assert f1_at(*scores, 0.5) == counted.f1


def test_no_threshold_beats_the_best_f1(scores: tuple[np.ndarray, np.ndarray]) -> None:
    labels, values = labelled(*scores)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, values)
    both = np.maximum(precision + recall, 1e-300)
    best, threshold = best_f1(*scores)
    assert best == pytest.approx((2 * precision * recall / both).max(), abs=1e-12)
    assert f1_at(*scores, threshold) == pytest.approx(best, abs=1e-12)


def test_a_detector_that_scores_all_alike_has_no_recall_at_a_low_rate() -> None:
    assert auc([0.0] * 9, [0.0] * 7) == 0.5
    assert recall_at_fpr([0.0] * 9, [0.0] * 7, 0.05) == 0.0


def test_one_false_alarm_is_allowed_only_where_the_rate_allows_one() -> None:
    safe = [0.9, *np.linspace(0.0, 0.5, 99)]  # a hundred texts, one of them scored high
    assert recall_at_fpr([0.7], safe, 0.01) == 1.0
    assert recall_at_fpr([0.7], safe, 0.009) == 0.0


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    trials, truth = 200, 0.93
    intervals = [wilson(int(successes), trials) for successes in random.binomial(trials, truth, 2000)]
    assert np.mean([one.low <= truth <= one.high for one in intervals]) == pytest.approx(0.95, abs=0.02)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    truth = 0.5 * math.erfc(-1 / 2)  # P(N(1, 1) > N(0, 1))
    covered = []
    for seed in range(200):
        interval = bootstrap(auc, random.normal(1, 1, 60), random.normal(0, 1, 60), seed=seed, resamples=200)
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    random = np.random.default_rng()
    unsafe, safe = random.normal(1, 1, 50), random.normal(0, 1, 50)
    assert bootstrap(auc, unsafe, safe, seed=3) == bootstrap(auc, unsafe, safe, seed=3)
    assert bootstrap(auc, unsafe, safe, seed=3) != bootstrap(auc, unsafe, safe, seed=4)


@pytest.mark.parametrize(("unsafe", "safe"), [([], [0.1]), ([0.1], []), ([math.nan], [0.1]), ([0.1], [math.inf])])
def test_what_cannot_be_measured_is_an_error_not_a_number(unsafe: list[float], safe: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores? of"):
        auc(unsafe, safe)


def test_wilson_refuses_impossible_counts() -> None:
    for successes, trials in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, trials)
