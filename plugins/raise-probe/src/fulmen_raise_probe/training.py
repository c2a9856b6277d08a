"""Trains a head: logistic regression on states. Its penalty and curve are fitted on texts kept apart, its figures are
of others.

Legend: N texts, D model width, C categories.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_probe.head import Head
from fulmen_raise_probe.rows import Row, groups, part_of
from fulmen_raise_probe.states import Pool, States_ND
from fulmen_safety import UserError
from fulmen_safety.logistic import fit_logistic, sigmoid

#: Shares of the groups to fit to and to calibrate on; the rest is measured on.
FIT, CALIBRATE = 0.6, 0.8
#: Fewer texts of a category in a part say nothing.
FEWEST = 8
_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)

Flags = NDArray[np.bool_]


def split(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row, the same for texts that are alike; see `groups`."""
    texts = [row.text for row in rows]
    return np.array([part_of(group, texts) for group in groups(texts)])


def train(
    rows: Sequence[Row], states_ND: States_ND, *, layer: int, pool: Pool, model: str
) -> tuple[Head, dict[str, Any]]:
    """Return the head and its card.

    Args:
        rows: labelled texts.
        states_ND: theirs.
        layer, pool, model: of the states, for the head.

    Raises:
        UserError: no category, or nothing safe, has enough texts in every part.
    """
    place_N = split(rows)
    parts = {"fit": place_N < FIT, "calibrate": (place_N >= FIT) & (place_N < CALIBRATE), "test": place_N >= CALIBRATE}
    categories = [one for one in sorted({row.category for row in rows} - {""}) if _enough(rows, one, parts)]
    if not categories or not _enough(rows, "", parts):
        raise UserError(
            "there are too few texts to train a probe", remedy="give 50 or more of a category, and as many safe ones"
        )
    center_D = states_ND[parts["fit"]].mean(axis=0)
    scale_D = states_ND[parts["fit"]].std(axis=0) + 1e-6
    scaled_ND = ((states_ND - center_D) / scale_D).astype(np.float64) / np.sqrt(states_ND.shape[1])
    weights, biases, figures = [], [], {}
    for category in categories:
        is_N = np.array([row.category == category for row in rows])
        penalty, weights_D, bias = _fit(scaled_ND, is_N, parts)
        weights_D = weights_D / scale_D / np.sqrt(states_ND.shape[1])
        bias -= float(weights_D @ center_D)
        weights.append(weights_D)
        biases.append(bias)
        test = parts["test"]
        scores_N = sigmoid(states_ND[test] @ weights_D + bias)
        figures[category] = {"penalty": penalty, **figures_of(scores_N, is_N[test])}
    head = Head(tuple(categories), np.array(weights, np.float32), np.array(biases, np.float32), layer, pool, model)
    unsafe_N = np.array([bool(row.category) for row in rows])
    test = parts["test"]
    card = {
        "texts": {name: int(part.sum()) for name, part in parts.items()},
        "texts_sha256": _digest(rows),
        "held_out": figures,
        "held_out_any": figures_of(head.probabilities(states_ND[test]).max(axis=1), unsafe_N[test]),
    }
    return head, card


def figures_of(scores_N: NDArray[np.float64], is_N: Flags) -> dict[str, float | int]:
    """Return texts, positives, the AUC, and the recall at a threshold that at most 1 and 5 % of the others reach."""
    others_N, mine_N = np.sort(scores_N[~is_N]), scores_N[is_N]
    below_N = np.searchsorted(others_N, mine_N, "left")
    upto_N = np.searchsorted(others_N, mine_N, "right")
    found: dict[str, float | int] = {
        "texts": len(scores_N),
        "positives": len(mine_N),
        "auc": round(float((below_N + upto_N).mean() / (2 * len(others_N))), 4),
    }
    for share in (0.01, 0.05):
        threshold = others_N[len(others_N) - 1 - int(share * len(others_N))]
        found[f"recall_at_fpr_{share:.0%}".replace("%", "pct")] = round(float((mine_N > threshold).mean()), 4)
    return found


def _fit(
    scaled_ND: NDArray[np.float64], is_N: Flags, parts: dict[str, Flags]
) -> tuple[float, NDArray[np.float64], float]:
    """The penalty under which texts kept apart are likeliest, and the weights with their curve multiplied in."""
    fit, apart = parts["fit"], parts["calibrate"]
    best: tuple[float, float, NDArray[np.float64], float] | None = None
    for penalty in _PENALTIES:
        weights_D, bias = fit_logistic(scaled_ND[fit], is_N[fit], penalty)
        margins_N = scaled_ND[apart] @ weights_D + bias
        slope, offset = fit_logistic(margins_N[:, None], is_N[apart], 1e-4)
        loss = _loss(float(slope[0]) * margins_N + offset, is_N[apart])
        if best is None or loss < best[0]:
            best = (loss, penalty, weights_D * float(slope[0]), bias * float(slope[0]) + offset)
    assert best is not None
    return best[1:]


def _loss(logits_N: NDArray[np.float64], is_N: Flags) -> float:
    losses_N = np.logaddexp(0.0, np.where(is_N, -logits_N, logits_N))
    return float(losses_N[is_N].mean() + losses_N[~is_N].mean())


def _enough(rows: Sequence[Row], category: str, parts: dict[str, Flags]) -> bool:
    is_N = np.array([row.category == category for row in rows])
    return all(int((part & is_N).sum()) >= FEWEST for part in parts.values())


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for one in sorted((row.text, row.category) for row in rows):
        digest.update(hashlib.sha256("\0".join(one).encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
