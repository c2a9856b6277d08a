"""The trained scorer: how likely a document is not of the kind of the reference texts.

With reference texts alone it says how unusual a document is among them: 0.5 where one in a hundred of them is more
surprising. With contrary texts too it says which of the two it is like, by the ratio of the two models' likelihoods:
a naive Bayes classifier over n-grams (as in DSIR, Xie et al. 2023, arXiv 2302.03169).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fulmen_core.errors import CorruptArtefact
from fulmen_core.files import atomic_directory, read_json
from fulmen_raise_quality.ngram_model import ORDERS, NgramModel
from fulmen_safety import UserError
from fulmen_safety.language import language_of

WEIGHTS, CARD = "model.safetensors", "card.json"

#: The name under which its findings stand beside the rules'.
SCORER_RULE = "unusual"

#: A shorter text is not judged: its likelihood is mostly chance.
FEWEST_CHARACTERS = {"en": 100, "zh": 40}


@dataclass(frozen=True, slots=True)
class Curve:
    """``p = sigmoid(slope * x + offset)`` of the bits per character, or of their difference."""

    slope: float
    offset: float

    def probability(self, value: float) -> float:
        """Return the probability, in [0, 1]."""
        return float(1.0 / (1.0 + np.exp(-np.clip(self.slope * value + self.offset, -40.0, 40.0))))


class Scorer:
    """See the top of the file.

    Args:
        good: model of the reference texts.
        bad: model of the contrary texts, if there are.
        curves: by language.
    """

    def __init__(self, good: NgramModel, bad: NgramModel | None, curves: Mapping[str, Curve]) -> None:
        self.good, self.bad, self.curves = good, bad, curves

    def value(self, text: str) -> float:
        """Return the bits per character, or by how many bits the contrary model fits better."""
        bits = self.good.bits_per_character(text)
        return bits if self.bad is None else bits - self.bad.bits_per_character(text)

    def score(self, text: str) -> float | None:
        """Return the probability that `text` is of low quality; None for a short text, or a language that the reference
        texts did not have."""
        language = language_of(text)
        curve = self.curves.get(language)
        if curve is None or len(text) < FEWEST_CHARACTERS[language]:
            return None
        return curve.probability(self.value(text))

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write the tables and the card to `folder`, whole or not at all. The same scorer gives the same bytes.

        Raises:
            UserError: the folder cannot be written.
        """
        from safetensors.numpy import save

        models = {"good": self.good} | ({"bad": self.bad} if self.bad else {})
        # 16 bits: a count of n-grams beyond 65,504 would be infinite, and no probability hangs on its last digits
        tensors = {name: np.minimum(model.counts_OS, 65504.0).astype(np.float16) for name, model in models.items()}
        said = {
            "totals": {name: model.total for name, model in models.items()},
            "curves": {name: [curve.slope, curve.offset] for name, curve in self.curves.items()},
        }
        with atomic_directory(folder) as work:
            (work / WEIGHTS).write_bytes(save(tensors))
            full = {"kind": "raise-quality", **said, **card}
            (work / CARD).write_text(json.dumps(full, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Scorer:
        """Read what `save` wrote.

        Raises:
            UserError: there is no scorer.
            CorruptArtefact: it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        card = read_json(folder / CARD, "card of a quality scorer")
        if not isinstance(card, dict) or card.get("kind") != "raise-quality":
            remedy = "give the folder that `fulmen raise quality train` wrote"
            raise UserError("this is no scorer of quality", where=str(folder), remedy=remedy)
        try:
            tensors = load_file(folder / WEIGHTS)
            models = {
                name: NgramModel(counts.astype(np.float32), float(card["totals"][name]))
                for name, counts in tensors.items()
            }
            curves = {name: Curve(float(slope), float(offset)) for name, (slope, offset) in card["curves"].items()}
            for model in models.values():
                orders, slots = model.counts_OS.shape
                if orders != ORDERS or slots < 2 or slots & (slots - 1):
                    raise ValueError(f"a table of {orders} by {slots}")
            return cls(models["good"], models.get("bad"), curves)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtefact(
                f"the scorer is damaged: {error}", where=str(folder), remedy="train it again"
            ) from error
