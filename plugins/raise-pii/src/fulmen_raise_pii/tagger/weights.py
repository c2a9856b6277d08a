"""The tagger's weights, as the package ships them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

FILE = "tagger.safetensors"


@dataclass(frozen=True)
class Tagger:
    """Everything that training makes. L labels.

    Args:
        features: weights of hashed features, [rows, L].
        moves: what each label costs or gains after each, [L, L].
        gazetteer: word key -> bits of `word_features.LISTS`.
        kinds: what the labels tell apart, in order: label 2k + 1 begins kind k.
        precision: for each kind, the share of what was found that was right, in cross-validation on templates that were
            not trained on.
        margin: see `decode.islands`.
    """

    features: NDArray[np.int8]
    moves: NDArray[np.int32]
    gazetteer: Mapping[int, int]
    kinds: tuple[str, ...]
    precision: tuple[float, ...]
    margin: int


@cache
def load() -> Tagger:
    """Return the tagger of the package."""
    with (
        resources.as_file(resources.files("fulmen_raise_pii") / "data" / FILE) as path,
        safe_open(path, framework="numpy") as stored,
    ):
        described = json.loads(stored.metadata()["tagger"])
        features = np.zeros((described["rows"], 2 * len(described["kinds"]) + 1), dtype=np.int8)
        rows = np.flatnonzero(np.unpackbits(stored.get_tensor("used_rows")))
        at = np.repeat(rows, stored.get_tensor("labels_per_row")), stored.get_tensor("labels")
        features[at] = stored.get_tensor("weights")
        listed = zip(stored.get_tensor("word_keys").tolist(), stored.get_tensor("word_lists").tolist(), strict=True)
        return Tagger(
            features=features,
            moves=stored.get_tensor("moves"),
            gazetteer=dict(listed),
            kinds=tuple(described["kinds"]),
            precision=tuple(described["precision"]),
            margin=described["margin"],
        )


def save(tagger: Tagger, path: Path) -> None:
    """Write a tagger: the weights that are not zero, row by row, the lists ordered by key. The same tagger gives the
    same bytes."""
    used = tagger.features.any(axis=1)
    at_rows, at_labels = np.nonzero(tagger.features)
    keys = sorted(tagger.gazetteer)
    tensors: dict[str, NDArray[Any]] = {
        "used_rows": np.packbits(used),
        "labels_per_row": np.count_nonzero(tagger.features[used], axis=1).astype(np.uint8),
        "labels": at_labels.astype(np.uint8),
        "weights": tagger.features[at_rows, at_labels],
        "moves": tagger.moves,
        "word_keys": np.array(keys, dtype=np.uint32),
        "word_lists": np.array([tagger.gazetteer[key] for key in keys], dtype=np.uint16),
    }
    described = {
        "kinds": tagger.kinds,
        "margin": tagger.margin,
        "precision": tagger.precision,
        "rows": len(tagger.features),
    }
    # one key: safetensors writes several in no order
    save_file(tensors, path, metadata={"tagger": json.dumps(described)})
