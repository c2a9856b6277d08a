"""From labelled rows to a calibrated model and its data card.

Margins of texts that a model was not trained on come from cross-validation in which near-duplicates and texts of one
template stay together (`grouping`); the curves are fitted to them, and the card's figures are theirs.

Legend: R rows, P pieces of rows (a text longer than the window is several), B buckets, H heads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_safety.language import LANGUAGES, language_of
from fulmen_safety.learned.artefact import serialised
from fulmen_safety.learned.calibration import Curve, fitted
from fulmen_safety.learned.card import FEWEST, category_figures, figures, sources
from fulmen_safety.learned.fitting import design, fit_head, quantised, rarity
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.rows import Row
from fulmen_safety.learned.window_detector import stretches

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Args:
        bits: of a bucket's number; 2**bits rows of weights.
        window: characters that are judged together; longer texts are judged in stretches of sentences.
        strength: of the data against the regulariser (scikit-learn's ``C``).
        folds: of the cross-validation.
        held_out: share of the groups that are never trained on, for figures of their own.
        seed: of the folds and the bootstrap.
    """

    bits: int = 18
    window: int = 600
    strength: float = 1.0
    folds: int = 5
    held_out: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, its card, and the probability of each row by a model that was not trained on it."""

    model: LinearModel
    card: dict[str, Any]
    probability_R: NDArray[np.float64]


def train(rows: Sequence[Row], options: Options) -> Trained:
    """Train on `rows`.

    Raises:
        UserError: fewer than 20 safe or unsafe rows or groups, or scikit-learn is not installed.
    """
    unsafe_R = np.array([row.unsafe for row in rows], np.bool_)
    groups_R = groups([row.text for row in rows], [row.group for row in rows])
    for label, side in (("unsafe", unsafe_R), ("safe", ~unsafe_R)):
        if len(set(groups_R[side].tolist())) < FEWEST:
            found = f"{int(side.sum())} {label} rows in {len(set(groups_R[side].tolist()))} groups of unlike texts"
            raise UserError(f"too little to learn from: {found}", remedy=f"give {FEWEST} groups or more")
    pieces = _Pieces.of(rows, options)
    categories = _categories(rows)
    aside_R = _aside(groups_R, options)
    folds_R = np.where(aside_R, -1, _folds(groups_R, options))
    margins_R = np.zeros(len(rows))
    guessed: list[tuple[int, str]] = []
    for fold in range(options.folds):
        out = folds_R == fold
        _judge(_fit(pieces, rows, ~out & ~aside_R, categories, options), pieces, out, margins_R, guessed)
    ours = ~aside_R
    curves = _curves([row for row, one in zip(rows, ours, strict=True) if one], margins_R[ours], unsafe_R[ours],
                     groups_R[ours], options.seed)  # fmt: skip
    model = replace(_fit(pieces, rows, ours, categories, options), curves=curves)
    if aside_R.any():
        _judge(model, pieces, aside_R, margins_R, [])
    probability_R = np.array([model.probability(row.text, margin) for row, margin in zip(rows, margins_R, strict=True)])
    card = {
        "kind": "linear",
        "sha256": hashlib.sha256(serialised(model)).hexdigest(),
        "options": asdict(options),
        "categories": list(categories),
        "rows": len(rows),
        "groups": len(set(groups_R.tolist())),
        "sources": sources(rows),
        "cross_validation": {
            "split": f"{options.folds} folds; near-duplicates and texts of one template in one fold",
            **figures(rows, probability_R, ours, options.seed),
            **({"category": category_figures(rows, guessed)} if guessed else {}),
        },
        "calibration": {name: curve.model_dump(mode="json") for name, curve in curves.items()},
    }
    if aside_R.any():
        card["held_out"] = {"rows": int(aside_R.sum()), **figures(rows, probability_R, aside_R, options.seed)}
    return Trained(model, card, probability_R)


def _judge(
    model: LinearModel,
    pieces: _Pieces,
    chosen_R: NDArray[np.bool_],
    margins_R: NDArray[np.float64],
    guessed: list[tuple[int, str]],
) -> None:
    """Put the margins of the chosen rows into `margins_R`, and their likeliest categories into `guessed`."""
    margins_PH = pieces.margins(model, chosen_R)
    margins_R[chosen_R], places = pieces.worst(margins_PH, chosen_R)
    if len(model.categories) > 1:
        likeliest = np.argmax(margins_PH[places, 1:], 1).tolist()
        guessed += zip(np.flatnonzero(chosen_R).tolist(), (model.categories[one] for one in likeliest), strict=True)


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
    first = fit_head(counts, rare, unsafe, weight, strength=options.strength)
    telling = _telling(counts @ first[0], owner, unsafe)
    if not telling.all():
        kept = np.flatnonzero(telling)
        counts, owner, unsafe = counts[kept], owner[kept], unsafe[kept]
        share = np.bincount(owner, minlength=len(rows))
        weight = np.array([row.weight for row in rows])[owner] / share[owner]
        first = fit_head(counts, rare, unsafe, weight, strength=options.strength)
    heads = [first]
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


def _telling(
    margins_P: NDArray[np.float32], owner_P: NDArray[np.intp], unsafe_P: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which pieces to learn from: all of safe texts, and of an unsafe one the worse half.

    A long unsafe text is harmless in most places; which, the first fit tells well enough.
    """
    order = np.lexsort((-margins_P, owner_P))
    firsts = np.flatnonzero(np.diff(owner_P[order], prepend=-1))
    sizes = np.diff(np.append(firsts, len(order)))
    rank_P = np.empty(len(order), np.intp)
    rank_P[order] = np.arange(len(order)) - np.repeat(firsts, sizes)
    size_P = np.empty(len(order), np.intp)
    size_P[order] = np.repeat(sizes, sizes)
    return np.asarray(~unsafe_P | (rank_P < (size_P + 1) // 2))


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
        if min((unsafe_R & ours).sum(), (~unsafe_R & ours).sum()) >= FEWEST:
            curves[language] = fitted(margins_R[ours], unsafe_R[ours], groups_R[ours], seed=seed)
    return curves


def _aside(groups_R: NDArray[np.int64], options: Options) -> NDArray[np.bool_]:
    random = np.random.default_rng([options.seed, 1])
    return np.asarray(random.random(int(groups_R.max()) + 1) < options.held_out)[groups_R]
