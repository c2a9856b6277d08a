"""Trains the scorer from the user's own texts, and measures it on texts that were kept apart.

A text is kept apart by the hash of its content, so that the same text never stands on both sides.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fulmen_raise_quality.ngram_model import NgramModel
from fulmen_raise_quality.scorer import FEWEST_CHARACTERS, Curve, Scorer
from fulmen_safety import UserError
from fulmen_safety.language import language_of
from fulmen_safety.logistic import fit_logistic

#: One in so many texts is kept apart, for the curves and for the figures of the card: two thirds and one third of them.
_APART = 5
#: Fewer texts of a language that were kept apart say nothing about it.
_FEWEST = 20
#: The share of the reference texts that an ordinary document may be among the most surprising of.
_UNUSUAL = 0.01


def train(good: Sequence[str], bad: Sequence[str], slot_bits: int) -> tuple[Scorer, dict[str, Any]]:
    """Return the scorer and its card.

    Args:
        good: reference texts, documents of the kind that the corpus should have.
        bad: contrary texts; may be empty.
        slot_bits: tables have ``2 ** slot_bits`` slots: 18 are 2 MB a model, enough for some 10 million characters.

    Raises:
        UserError: there are too few texts of every language.
    """
    parts = {"good": _split(good), "bad": _split(bad)}
    models = {
        name: NgramModel.fit(part["train"], slot_bits)
        for name, part in parts.items()
        if part["train"] and part["apart"]
    }
    if "good" not in models or (bad and "bad" not in models):
        raise UserError("there are too few texts to train a scorer of quality", remedy="give hundreds of documents")
    scorer = Scorer(models["good"], models.get("bad"), {})
    curves: dict[str, Curve] = {}
    for language in FEWEST_CHARACTERS:
        good_values = _values(scorer, parts["good"]["apart"], language)
        bad_values = _values(scorer, parts["bad"]["apart"], language)
        if len(good_values) >= _FEWEST and (not bad or len(bad_values) >= _FEWEST):
            curves[language] = _contrast(good_values, bad_values) if bad else _quantile(good_values)
    if not curves:
        raise UserError(
            f"fewer than {_FEWEST} texts of any language were kept apart", remedy="give hundreds of documents"
        )
    scorer = Scorer(scorer.good, scorer.bad, curves)
    card = {
        "trained_on": {name: len(part["train"]) for name, part in parts.items()},
        "texts_sha256": {"good": _digest(good), "bad": _digest(bad)},
        "held_out": _figures(scorer, parts),
    }
    return scorer, card


def _split(texts: Sequence[str]) -> dict[str, list[str]]:
    """Texts to count, to fit the curves to, and to measure on."""
    found: dict[str, list[str]] = {"train": [], "apart": [], "test": []}
    for text in dict.fromkeys(texts):
        place = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        if place % _APART:
            found["train"].append(text)
        else:
            found["test" if place // _APART % 3 == 0 else "apart"].append(text)
    return found


def _values(scorer: Scorer, texts: Sequence[str], language: str) -> list[float]:
    fit = (one for one in texts if language_of(one) == language and len(one) >= FEWEST_CHARACTERS[language])
    return [scorer.value(text) for text in fit]


def _quantile(values: Sequence[float]) -> Curve:
    """Half at the quantile, and steeper the closer the texts lie together."""
    edge = float(np.quantile(values, 1 - _UNUSUAL))
    spread = max(edge - float(np.median(values)), 1e-3)
    slope = 4.0 / spread  # an ordinary text scores 0.02
    return Curve(slope, -slope * edge)


def _contrast(good: Sequence[float], bad: Sequence[float]) -> Curve:
    values = np.array([*good, *bad])
    weights, bias = fit_logistic(values[:, None], np.arange(len(values)) >= len(good), 1e-4)
    return Curve(float(weights[0]), bias)


def _figures(scorer: Scorer, parts: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """For each language, of the texts that neither tables nor curves have seen: how many, and the share above 0.5."""
    figures: dict[str, Any] = defaultdict(dict)
    for name, part in parts.items():
        for language in scorer.curves:
            scores = [score for text in part["test"] if language_of(text) == language if (score := scorer.score(text))]
            if scores:
                share = sum(score >= 0.5 for score in scores) / len(scores)
                figures[language][name] = {"texts": len(scores), "flagged": round(share, 4)}
    return dict(figures)


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for one in sorted(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts):
        digest.update(one)
    return digest.hexdigest()
