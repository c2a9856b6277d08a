"""From labelled rows to a calibrated model and its data card.

Margins of texts that a model was not trained on come from cross-validation in which near-duplicates and texts of one
template stay together (`grouping`); the curves are fitted to them, and the card's figures are theirs.

Legend: R rows, P pieces of rows (a text longer than the window is several), B buckets, H heads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_safety.evaluation import metrics
from fulmen_safety.language import LANGUAGES, language_of
from fulmen_safety.learned.artefact import serialised
from fulmen_safety.learned.bert import Bert
from fulmen_safety.learned.calibration import Curve, fitted
from fulmen_safety.learned.card import FEWEST, category_figures, figures, sources
from fulmen_safety.learned.cascade import LOST, gate_of, passing
from fulmen_safety.learned.encoder import Encoder
from fulmen_safety.learned.encoder_training import fit_encoder
from fulmen_safety.learned.fitting import CATEGORY_BITS, design, fit_head, folded, quantised, rarity
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.linear_model import SHORT, LinearModel
from fulmen_safety.learned.rows import Row
from fulmen_safety.learned.splits import aside, folds
from fulmen_safety.learned.window_detector import stretch_margins, stretches

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Args:
        kind: "linear", or "transformer": the linear model and a small Transformer that judges English with it.
        bits: of a bucket's number; 2**bits rows of weights.
        window: characters that are judged together; longer texts are judged in stretches of sentences.
        strength: of the data against the regulariser (scikit-learn's ``C``).
        folds: of the cross-validation, of a linear model.
        held_out: share of the groups that are never trained on. Of a Transformer, half of them calibrate it and half
            give its figures.
        worst_of_safe: whether the worst stretch of a safe text weighs as much as a text, not as its share of one: of
            many stretches none must be unsafe by chance.
        epochs: of the Transformer.
        gate_loss: share of what both find that the cascade's gate may lose (`cascade.gate_of`).
        short_gate_loss: the same of texts that are short (`linear_model.SHORT`).
        seed: of every split, of the bootstrap and of the Transformer.
    """

    kind: str = "linear"
    bits: int = 18
    window: int = 600
    strength: float = 1.0
    folds: int = 5
    held_out: float = 0.0
    worst_of_safe: bool = False
    epochs: int = 12
    gate_loss: float = LOST
    short_gate_loss: float = LOST
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, its card, and the probability of each row by a model that was not trained on it; NaN for rows that
    none was kept from.
    """

    model: LinearModel
    card: dict[str, Any]
    probability_R: NDArray[np.float64]


def train(
    rows: Sequence[Row],
    options: Options,
    vectors: Mapping[int, NDArray[np.float32]] | None = None,
    encoder: Bert | None = None,
) -> Trained:
    """Train on `rows`.

    Args:
        vectors: hash of a word -> what the Transformer's row of it starts from.
        encoder: a Transformer that was trained before, on rows none of which are held out here; it is taken as it is.

    Raises:
        UserError: fewer than 20 groups of safe or unsafe rows, or scikit-learn or torch is not installed.
    """
    groups_R = _groups(rows)
    labelled_R = np.array([row.score is None for row in rows], np.bool_)
    unsafe_R = np.array([row.unsafe for row in rows], np.bool_)
    for label, side in (("unsafe", unsafe_R), ("safe", ~unsafe_R)):
        found = len(set(groups_R[side & labelled_R].tolist()))
        if found < FEWEST:
            raise UserError(
                f"too little to learn from: {found} groups of unlike {label} texts", remedy=f"give {FEWEST} or more"
            )
    aside_R = labelled_R & aside(groups_R, options.held_out, options.seed)
    data = _Data(rows, _Pieces.of(rows, options), groups_R, labelled_R, aside_R, _categories(rows), options)
    probability_R, model, told = (
        _linear(data) if options.kind == "linear" else _transformer(data, vectors or {}, encoder)
    )
    card = {
        "kind": options.kind,
        "sha256": hashlib.sha256(serialised(model)).hexdigest(),
        "options": asdict(options),
        "categories": list(data.categories),
        "rows": int(labelled_R.sum()),
        "taught_rows": int((~labelled_R).sum()),
        "groups": len(set(groups_R[labelled_R].tolist())),
        "sources": sources(rows),
        **told,
        "calibration": {name: curve.model_dump(mode="json") for name, curve in model.curves.items()},
    }
    return Trained(model, card, probability_R)


def _groups(rows: Sequence[Row]) -> NDArray[np.int64]:
    """Group the labelled rows as if the others were not there; those are one more group, after them.

    The teacher knew no others and kept away from what is put aside. A variant that it scored is like two texts at once:
    if it could join their groups, the split would be another, and texts that the teacher had seen would be "held out".
    """
    labelled = [row for row in rows if row.score is None]
    numbers = groups([row.text for row in labelled], [row.group for row in labelled])
    last = int(numbers.max(initial=-1)) + 1
    left = iter(numbers.tolist())
    return np.array([next(left) if row.score is None else last for row in rows], np.int64)


@dataclass(frozen=True, slots=True)
class _Data:
    rows: Sequence[Row]
    pieces: _Pieces
    groups_R: NDArray[np.int64]
    labelled_R: NDArray[np.bool_]
    aside_R: NDArray[np.bool_]
    categories: tuple[str, ...]
    options: Options

    def fitted(self, chosen_R: NDArray[np.bool_]) -> LinearModel:
        """Return the linear model of the chosen rows, without curves."""
        return _fit(self.pieces, self.rows, chosen_R, self.categories, self.options)

    def curves(self, margins_R: NDArray[np.float64], chosen_R: NDArray[np.bool_]) -> dict[str, Curve]:
        """Return the curves of the chosen rows."""
        some = [row for row, one in zip(self.rows, chosen_R, strict=True) if one]
        unsafe = np.array([row.unsafe for row in some])
        return _curves(some, margins_R[chosen_R], unsafe, self.groups_R[chosen_R], self.options.seed)

    def chosen(
        self, margins_R: NDArray[np.float64], chosen_R: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the margins of the chosen English rows: of unsafe ones, of safe ones."""
        ours = chosen_R & np.array([language_of(row.text) == "en" for row in self.rows])
        unsafe = ours & np.array([row.unsafe for row in self.rows])
        return margins_R[unsafe], margins_R[ours & ~unsafe]

    def probability(self, model: LinearModel, margins_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated probability [R]; NaN stays."""
        return np.array([model.probability(row.text, one) for row, one in zip(self.rows, margins_R, strict=True)])


def _linear(data: _Data) -> tuple[NDArray[np.float64], LinearModel, dict[str, Any]]:
    ours = data.labelled_R & ~data.aside_R
    folds_R = np.where(ours, folds(data.groups_R, data.options.folds, data.options.seed), -1)
    margins_R = np.full(len(data.rows), np.nan)
    guessed: list[tuple[int, str]] = []
    for fold in range(data.options.folds):
        out = folds_R == fold
        if out.any():
            _judge(data.fitted(~out & ~data.aside_R), data.pieces, out, margins_R, guessed)
    model = replace(data.fitted(~data.aside_R), curves=data.curves(margins_R, ours))
    if data.aside_R.any():
        _judge(model, data.pieces, data.aside_R, margins_R, [])
    probability_R = data.probability(model, margins_R)
    split = f"{data.options.folds} folds; near-duplicates and texts of one template in one fold"
    told: dict[str, Any] = {
        "cross_validation": {"split": split, **figures(data.rows, probability_R, ours, data.options.seed)}
    }
    if guessed:
        told["cross_validation"]["category"] = category_figures(data.rows, guessed)
    if data.aside_R.any():
        told["held_out"] = figures(data.rows, probability_R, data.aside_R, data.options.seed)
    return probability_R, model, told


def _transformer(
    data: _Data, vectors: Mapping[int, NDArray[np.float32]], given: Bert | None
) -> tuple[NDArray[np.float64], LinearModel, dict[str, Any]]:
    ours = ~data.aside_R
    half_R = data.aside_R & aside(data.groups_R, 0.5, data.options.seed + 1)  # calibrates; the other half is reported
    rest_R = data.aside_R & ~half_R
    for kept in (half_R, rest_R):
        unsafe = sum(row.unsafe for row, one in zip(data.rows, kept, strict=True) if one)
        if min(unsafe, int(kept.sum()) - unsafe) < FEWEST:
            remedy = "give more rows or a larger --held-out"
            raise UserError("too few rows are held out to calibrate the Transformer", remedy=remedy)
    encoder = given or _encoder(data, ours, vectors)
    # what is put aside measures whether a text is unsafe; of which category, all that is labelled may teach
    linear = _with_categories(data.fitted(ours), data.fitted(np.ones(len(data.rows), np.bool_)))
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    margins_SR = {share: _margins(data, replace(linear, encoder=encoder, share=share)) for share in shares}
    share = max(margins_SR, key=lambda one: _separation(data, margins_SR[one], half_R))
    short_R = data.aside_R & np.array([len(row.text) <= SHORT for row in data.rows])
    compared = margins_SR[0.0], margins_SR[share]
    gate = _gate(data, *compared, data.aside_R, data.options.gate_loss)
    short_gate = _gate(data, *compared, short_R, data.options.short_gate_loss)
    margin, short_margin = gate.get("linear_margin"), short_gate.get("linear_margin")
    cascade = replace(linear, encoder=encoder, share=share, gate=margin, short_gate=short_margin)
    margins_R = _margins(data, cascade)
    model = replace(cascade, curves=data.curves(margins_R, half_R))
    probability_R = data.probability(model, margins_R)
    told: dict[str, Any] = {
        "held_out": {
            "split": f"{data.options.held_out:.0%} of the groups of alike texts; half of them calibrated it",
            **figures(data.rows, probability_R, rest_R, data.options.seed),
        },
        "transformer": {"layers": len(encoder.layers), "width": len(encoder.head), "words": len(encoder.words)},
        "share_of_transformer": share,
        "auc_by_share": {f"{one:g}": round(_separation(data, margins_SR[one], half_R), 4) for one in margins_SR},
    }
    if gate:
        told["gate"] = gate
    if short_gate:
        told["short_gate"] = short_gate
    return probability_R, model, told


def _gate(
    data: _Data,
    linear_R: NDArray[np.float64],
    both_R: NDArray[np.float64],
    chosen_R: NDArray[np.bool_],
    loss: float,
) -> dict[str, Any]:
    """Return where the gate of the chosen texts stands and what it costs; nothing if they are too few."""
    sides = data.chosen(linear_R, chosen_R), data.chosen(both_R, chosen_R)
    gate = gate_of(*sides, loss) if min(map(len, sides[0])) >= FEWEST else None
    return {} if gate is None else {"linear_margin": gate, **passing(*sides, gate)}


def _encoder(data: _Data, chosen_R: NDArray[np.bool_], vectors: Mapping[int, NDArray[np.float32]]) -> Encoder:
    english = [row for row, one in zip(data.rows, chosen_R, strict=True) if one and language_of(row.text) == "en"]
    return fit_encoder(english, vectors, epochs=data.options.epochs, seed=data.options.seed)


def _with_categories(model: LinearModel, other: LinearModel) -> LinearModel:
    """Return `model` with the heads of the categories from `other`."""
    return replace(
        model,
        weights_AC=other.weights_AC,
        scale_H=np.concatenate([model.scale_H[:1], other.scale_H[1:]]),
        bias_H=np.concatenate([model.bias_H[:1], other.bias_H[1:]]),
    )


def _margins(data: _Data, model: LinearModel) -> NDArray[np.float64]:
    """Return the margins of the rows put aside, as the finished detector gives them; NaN for the others."""
    margins_R = np.full(len(data.rows), np.nan)
    for place in np.flatnonzero(data.aside_R).tolist():
        text = data.rows[place].text
        margins_R[place] = stretch_margins(model, text, *stretches(text, model.window))[:, 0].max()
    return margins_R


def _separation(data: _Data, margins_R: NDArray[np.float64], chosen_R: NDArray[np.bool_]) -> float:
    """Return the AUC of the chosen English rows."""
    return metrics.auc(*data.chosen(margins_R, chosen_R))


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
        counts_PB = self.counts_PB[chosen_P]
        sums = [(counts_PB @ model.weights_B.astype(np.float32))[:, None]]
        if model.weights_AC.size:
            sums.append(folded(counts_PB, len(model.weights_AC).bit_length() - 1) @ model.weights_AC.astype(np.float32))
        margins[chosen_P] = np.concatenate(sums, 1) * model.scale_H + model.bias_H
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
    certainty_R = np.array([_certainty(row) for row in rows])
    weight = certainty_R[owner] / share[owner]
    unsafe = np.array([row.unsafe for row in rows])[owner]
    rare = rarity(counts)
    first = fit_head(counts, rare, unsafe, weight, strength=options.strength)
    rank, size = _ranked(counts @ first[0], owner)
    # a long unsafe text is harmless in most places; which, the first fit tells well enough: its worse half is kept
    telling = ~unsafe | (rank < (size + 1) // 2)
    if not telling.all() or options.worst_of_safe:
        kept = np.flatnonzero(telling)
        counts, owner, unsafe, rank = counts[kept], owner[kept], unsafe[kept], rank[kept]
        share = np.bincount(owner, minlength=len(rows))
        whole = options.worst_of_safe & ~unsafe & (rank == 0)
        weight = np.where(whole, certainty_R[owner], certainty_R[owner] / share[owner])
        first = fit_head(counts, rare, unsafe, weight, strength=options.strength)
    heads = [first]
    if len(categories) > 1:
        unsafe = unsafe & np.array([row.score is None for row in rows])[owner]
        theirs, rare = folded(counts[np.flatnonzero(unsafe)], CATEGORY_BITS), rarity(folded(counts, CATEGORY_BITS))
        among = [rows[place].categories for place in owner[unsafe].tolist()]
        for category in categories:
            wanted = np.array([category in one for one in among])
            if wanted.all() or not wanted.any():
                heads.append((np.zeros_like(rare), 3.0 if wanted.any() else -3.0))
            else:
                heads.append(fit_head(theirs, rare, wanted, weight[unsafe], strength=options.strength))
    return quantised(heads, categories, options.window)


def _certainty(row: Row) -> float:
    """Return how much a row counts: a teacher's as much as the teacher is sure, if not at all next to nothing."""
    return row.weight if row.score is None else row.weight * max(abs(2 * row.score - 1), 1e-3)


def _ranked(margins_P: NDArray[np.float32], owner_P: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rank of each piece among those of its text, the worst first, and how many these are."""
    order = np.lexsort((-margins_P, owner_P))
    firsts = np.flatnonzero(np.diff(owner_P[order], prepend=-1))
    sizes = np.diff(np.append(firsts, len(order)))
    rank_P, size_P = np.empty(len(order), np.intp), np.empty(len(order), np.intp)
    rank_P[order] = np.arange(len(order)) - np.repeat(firsts, sizes)
    size_P[order] = np.repeat(sizes, sizes)
    return rank_P, size_P


def _categories(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({category for row in rows for category in row.categories}))


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
