"""From labelled rows to a calibrated model and its data card.

Margins of texts that a model was not trained on come from cross-validation in which near-duplicates and texts of one
template stay together (`grouping`); the curves are fitted to them, and the card's figures are theirs.

Legend: R rows, P pieces of rows (a text longer than the window is several), B buckets, H heads.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_safety.evaluation import metrics
from fulmen_safety.language import LANGUAGES, language_of
from fulmen_safety.learned.artefact import serialised
from fulmen_safety.learned.calibration import Curve, fitted
from fulmen_safety.learned.fitting import design, fit_head, quantised, rarity
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.rows import Row
from fulmen_safety.learned.window_detector import stretches

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Head = tuple[NDArray[np.float32], float]
_FEWEST = 20  # unsafe and safe rows below which nothing can be learned, or a language has no curve of its own


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Args:
        bits: of a bucket's number; 2**bits rows of weights.
        window: characters that are judged together; longer texts are judged in stretches of sentences.
        strength: of the data against the regulariser (scikit-learn's ``C``).
        folds: of the cross-validation.
        seed: of the folds and the bootstrap.
    """

    bits: int = 18
    window: int = 600
    strength: float = 1.0
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, its card, and what cross-validation gave each row: its probability and its fold."""

    model: LinearModel
    card: Mapping[str, Any]
    probability_R: NDArray[np.float64]


def train(rows: Sequence[Row], options: Options) -> Trained:
    """Train on `rows`.

    Raises:
        UserError: fewer than 20 safe or unsafe rows or groups, or scikit-learn is not installed.
    """
    unsafe_R = np.array([row.unsafe for row in rows], np.bool_)
    groups_R = groups([row.text for row in rows], [row.group for row in rows])
    for label, side in (("unsafe", unsafe_R), ("safe", ~unsafe_R)):
        if len(set(groups_R[side].tolist())) < _FEWEST:
            found = f"{int(side.sum())} {label} rows in {len(set(groups_R[side].tolist()))} groups of unlike texts"
            raise UserError(f"too little to learn from: {found}", remedy=f"give {_FEWEST} groups or more")
    pieces = _Pieces.of(rows, options)
    categories = _categories(rows)
    folds_R = _folds(groups_R, options)
    margins_R = np.zeros(len(rows))
    guessed: list[tuple[int, str]] = []
    for fold in range(options.folds):
        out = folds_R == fold
        model = _fit(pieces, rows, ~out, categories, options)
        margins_PH = pieces.margins(model, out)
        margins_R[out], places = pieces.worst(margins_PH, out)
        if len(categories) > 1:
            chosen = np.argmax(margins_PH[places, 1:], 1)
            guessed += [(row, categories[one]) for row, one in zip(np.flatnonzero(out).tolist(), chosen, strict=True)]
    curves = _curves(rows, margins_R, unsafe_R, groups_R, options.seed)
    model = replace(_fit(pieces, rows, np.ones(len(rows), np.bool_), categories, options), curves=curves)
    probability_R = np.array(
        [model.probability(row.text, margin) for row, margin in zip(rows, margins_R, strict=True)]
    )
    card = {
        "kind": "linear",
        "sha256": hashlib.sha256(serialised(model)).hexdigest(),
        "options": {name: getattr(options, name) for name in ("bits", "window", "strength", "folds", "seed")},
        "categories": list(categories),
        "rows": len(rows),
        "groups": len(set(groups_R.tolist())),
        "sources": _sources(rows),
        "cross_validation": {
            "split": f"{options.folds} folds; near-duplicates and texts of one template in one fold",
            **_figures(rows, unsafe_R, probability_R, options.seed),
            **({"category": _category_figures(rows, guessed)} if guessed else {}),
        },
        "calibration": {name: curve.model_dump(mode="json") for name, curve in curves.items()},
    }
    return Trained(model, card, probability_R)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The rows' texts in the stretches in which they will be judged."""

    counts_PB: csr_matrix
    row_P: NDArray[np.intp]

    @classmethod
    def of(cls, rows: Sequence[Row], options: Options) -> _Pieces:
        texts, owners = [], []
        for place, row in enumerate(rows):
            for start, end in zip(*stretches(row.text, options.window), strict=True):
                texts.append(row.text[start:end])
                owners.append(place)
        return cls(design(texts, options.bits), np.array(owners, np.intp))

    def margins(self, model: LinearModel, chosen_R: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the margins [P, H] by the finished weights; those of rows that are not chosen stay -inf."""
        margins = np.full((len(self.row_P), len(model.scale_H)), -np.inf)
        chosen_P = chosen_R[self.row_P]
        weights = model.weights_BH.astype(np.float32) * model.scale_H
        margins[chosen_P] = self.counts_PB[chosen_P] @ weights + model.bias_H
        return margins

    def worst(
        self, margins_PH: NDArray[np.float64], chosen_R: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the highest margin of head 0 of each chosen row, and the piece that has it."""
        order = np.lexsort((margins_PH[:, 0], self.row_P))
        last = np.flatnonzero(np.diff(self.row_P[order], append=-1))
        best = order[last][chosen_R[self.row_P[order[last]]]]
        return margins_PH[best, 0], best


def _fit(
    pieces: _Pieces, rows: Sequence[Row], chosen_R: NDArray[np.bool_], categories: tuple[str, ...], options: Options
) -> LinearModel:
    chosen_P = np.flatnonzero(chosen_R[pieces.row_P])
    counts = pieces.counts_PB[chosen_P]
    owner = pieces.row_P[chosen_P]
    share = np.bincount(owner, minlength=len(rows))
    weight = np.array([row.weight for row in rows])[owner] / share[owner]
    unsafe = np.array([row.unsafe for row in rows])[owner]
    rare = rarity(counts)
    heads = [fit_head(counts, rare, unsafe, weight, strength=options.strength)]
    if len(categories) > 1:
        theirs = counts[np.flatnonzero(unsafe)]
        among = [rows[place].categories for place in owner[unsafe].tolist()]
        for category in categories:
            wanted = np.array([category in one for one in among])
            if wanted.all() or not wanted.any():
                heads.append((np.zeros_like(rare), 3.0 if wanted.any() else -3.0))
            else:
                heads.append(fit_head(theirs, rare, wanted, weight[unsafe], strength=options.strength))
    return quantised(heads, categories, options.window)


def _categories(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({category for row in rows for category in row.categories}))


def _folds(groups_R: NDArray[np.int64], options: Options) -> NDArray[np.intp]:
    """Deal the groups out at random, the largest first, each to the smallest fold."""
    sizes = np.bincount(groups_R)
    random = np.random.default_rng(options.seed).permutation(len(sizes))
    held = np.zeros(options.folds, np.intp)
    fold_of = np.zeros(len(sizes), np.intp)
    for group in random[np.argsort(-sizes[random], kind="stable")]:
        fold_of[group] = int(np.argmin(held))
        held[fold_of[group]] += sizes[group]
    return fold_of[groups_R]


def _curves(
    rows: Sequence[Row],
    margins_R: NDArray[np.float64],
    unsafe_R: NDArray[np.bool_],
    groups_R: NDArray[np.int64],
    seed: int,
) -> dict[str, Curve]:
    language_R = np.array([language_of(row.text) for row in rows])
    curves = {"*": fitted(margins_R, unsafe_R, groups_R, seed=seed)}
    for language in LANGUAGES:
        ours = language_R == language
        if min((unsafe_R & ours).sum(), (~unsafe_R & ours).sum()) >= _FEWEST:
            curves[language] = fitted(margins_R[ours], unsafe_R[ours], groups_R[ours], seed=seed)
    return curves


def _sources(rows: Sequence[Row]) -> list[dict[str, Any]]:
    counted = Counter((row.source, row.licence, row.unsafe) for row in rows)
    names = sorted({(source, licence) for source, licence, _ in counted})
    return [
        {"source": source, "licence": licence}
        | {label: counted[source, licence, unsafe] for label, unsafe in (("unsafe", True), ("safe", False))}
        for source, licence in names
    ]


def _figures(
    rows: Sequence[Row], unsafe_R: NDArray[np.bool_], probability_R: NDArray[np.float64], seed: int
) -> dict[str, Any]:
    """Return the figures per language, and for each source the share that is flagged at the thresholds of 1 and 5 %
    false alarms in its language."""
    told: dict[str, Any] = {"by_lang": {}, "by_source": {}}
    language_R = np.array([language_of(row.text) for row in rows])
    source_R = np.array([row.source for row in rows])
    for language in LANGUAGES:
        ours = language_R == language
        bad, good = probability_R[ours & unsafe_R], probability_R[ours & ~unsafe_R]
        if min(len(bad), len(good)) < _FEWEST:
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
            interval = metrics.bootstrap(
                lambda one, other, rate=rate: metrics.recall_at_fpr(one, other, rate),
                bad, good, seed=seed, resamples=200,
            )  # fmt: skip
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


def _category_figures(rows: Sequence[Row], guessed: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return how often the likeliest category of an unsafe text is one of its own."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for place, category in guessed:
        for own in rows[place].categories:
            right[own].append(category in rows[place].categories)
    return {name: {"rows": len(hits), "recall": round(sum(hits) / len(hits), 4)} for name, hits in sorted(right.items())}
