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
        features = np.zeros((described["rows"], stored.get_slice("features").get_shape()[1]), dtype=np.int8)
        features[stored.get_tensor("rows")] = stored.get_tensor("features")
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
    """Write a tagger: the rows that are not zero, the lists ordered by key. The same tagger gives the same bytes."""
    rows = np.flatnonzero(tagger.features.any(axis=1)).astype(np.uint32)
    keys = sorted(tagger.gazetteer)
    tensors: dict[str, NDArray[Any]] = {
        "rows": rows,
        "features": tagger.features[rows],
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
