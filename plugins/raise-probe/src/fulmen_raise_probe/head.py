"""The head: for each category a weight vector on the state, and a bias; a folder of `head.safetensors` and a card.

Legend: N texts, D model width, C categories.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import CorruptArtefact
from fulmen_core.files import atomic_directory, read_json
from fulmen_raise_probe.states import Pool, States_ND
from fulmen_safety import UserError
from fulmen_safety.logistic import sigmoid
from fulmen_safety.taxonomy import taxonomy

WEIGHTS, CARD = "head.safetensors", "card.json"
_KIND = "raise-probe"


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head.

    Args:
        categories: C of the taxonomy.
        weights_CD: float32, of states as they come, the scaling and the calibration multiplied in.
        bias_C: float32.
        layer, pool: of which states; see `fulmen_raise_probe.states`.
        model: fingerprint of the model directory.
    """

    categories: tuple[str, ...]
    weights_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    layer: int
    pool: Pool
    model: str

    def probabilities(self, states_ND: States_ND) -> NDArray[np.float64]:
        """Return the probability [N, C] of each category.

        Raises:
            ValueError: the states have another width.
        """
        if states_ND.shape[1] != self.weights_CD.shape[1]:
            raise ValueError(
                f"states of {states_ND.shape[1]} numbers; the head, of another model, is for {self.weights_CD.shape[1]}"
            )
        return sigmoid((states_ND @ self.weights_CD.T + self.bias_C).astype(np.float64))

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write the head and its card to `folder`, whole or not at all. The same head gives the same bytes.

        Raises:
            UserError: the folder cannot be written.
        """
        from safetensors.numpy import save

        said = {
            "kind": _KIND,
            "categories": list(self.categories),
            "layer": self.layer,
            "pool": self.pool,
            "model": self.model,
        }
        with atomic_directory(folder) as work:
            (work / WEIGHTS).write_bytes(save({"weights": self.weights_CD, "bias": self.bias_C}))
            full = json.dumps({**card, **said}, indent=1, ensure_ascii=False, sort_keys=True)
            (work / CARD).write_text(full + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Head:
        """Read what `save` wrote.

        Raises:
            UserError: there is no head.
            CorruptArtefact: it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        card = read_json(folder / CARD, "card of a probe")
        if not isinstance(card, dict) or card.get("kind") != _KIND:
            remedy = "give the folder that `fulmen raise probe train` wrote"
            raise UserError("this is no probe", where=str(folder), remedy=remedy)
        try:
            tensors = load_file(folder / WEIGHTS)
            head = cls(
                tuple(card["categories"]),
                tensors["weights"].astype(np.float32),
                tensors["bias"].astype(np.float32),
                int(card["layer"]),
                card["pool"],
                str(card["model"]),
            )
            if (
                head.weights_CD.ndim != 2
                or head.bias_C.shape != (len(head.categories),)
                or head.pool not in ("mean", "last")
            ):
                raise ValueError("its tensors do not fit its card")
            if len(head.weights_CD) != len(head.categories):
                raise ValueError("its tensors do not fit its card")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtefact(
                f"the probe is damaged: {error}", where=str(folder), remedy="train it again"
            ) from error
        for category in head.categories:
            taxonomy().check(category, str(folder))
        return head
