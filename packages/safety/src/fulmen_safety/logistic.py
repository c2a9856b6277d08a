"""Logistic regression by Newton's method, with which scores become probabilities. Needs numpy.

Legend: N rows, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS = 60
_TOLERANCE = 1e-9


def sigmoid(logit: Array) -> Array:
    """``1 / (1 + exp(-logit))``, without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0))))


def fit_logistic(
    features_ND: Array, positive_N: NDArray[np.bool_], penalty: float, times_N: Array | None = None
) -> tuple[Array, float]:
    """Fit weights and bias in which both classes weigh the same, whatever their share of the rows.

    Minimises the mean log loss of either class, averaged over the two, plus ``penalty / 2`` times the squared weights.
    Targets are smoothed as by Platt (1999), so that separable rows give finite weights even without a penalty.

    Args:
        features_ND: finite; better scaled to about 1.
        positive_N: both values occur.
        penalty: of the weights, not of the bias; 0 or more.
        times_N: how many times each row counts among its class, as a bootstrap draws it; once each by default.

    Returns:
        Weights [D] and the bias: the logit of a row x is ``x @ weights + bias``.

    Raises:
        ValueError: there is one class only.
    """
    positives, rows = int(positive_N.sum()), len(positive_N)
    if not 0 < positives < rows:
        raise ValueError(f"{positives} of {rows} rows are positive: there is nothing to tell apart")
    design_NE = np.concatenate([features_ND, np.ones((rows, 1))], axis=1)
    counted_N = np.ones(rows) if times_N is None else times_N
    weight_N = 0.5 * counted_N / np.where(positive_N, counted_N[positive_N].sum(), counted_N[~positive_N].sum())
    target_N = np.where(positive_N, 1 - 1 / (positives + 2), 1 / (rows - positives + 2))
    ridge_E = np.full(design_NE.shape[1], penalty)
    ridge_E[-1] = 0.0
    solution_E = np.zeros(design_NE.shape[1])
    loss = _loss(design_NE, weight_N, target_N, ridge_E, solution_E)
    for _ in range(_STEPS):
        probability_N = sigmoid(design_NE @ solution_E)
        gradient_E = design_NE.T @ (weight_N * (probability_N - target_N)) + ridge_E * solution_E
        curvature_N = weight_N * probability_N * (1 - probability_N)
        hessian_EE = design_NE.T @ (design_NE * curvature_N[:, None]) + np.diag(ridge_E + 1e-10)
        step_E = np.linalg.solve(hessian_EE, gradient_E)
        # halved until it helps: far from the minimum a whole step of Newton's may overshoot
        for _ in range(30):
            tried_E = solution_E - step_E
            new_loss = _loss(design_NE, weight_N, target_N, ridge_E, tried_E)
            if new_loss <= loss:
                break
            step_E = step_E / 2
        solution_E, gained, loss = tried_E, loss - new_loss, new_loss
        if gained < _TOLERANCE * max(loss, 1e-12):
            break
    return solution_E[:-1], float(solution_E[-1])


def _loss(design_NE: Array, weight_N: Array, target_N: Array, ridge_E: Array, solution_E: Array) -> float:
    logit_N = design_NE @ solution_E
    each_N = np.logaddexp(0.0, logit_N) - target_N * logit_N
    return float(weight_N @ each_N + 0.5 * (ridge_E * solution_E) @ solution_E)
