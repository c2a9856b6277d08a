"""A trained model on disk: `model.safetensors`, and beside it `card.json`, which says what it was made of.

The description of the model travels in the weights' header under one key, so the bytes are the same each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_directory
from fulmen_safety.learned import bert, encoder, four_bits
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.settings import Table, read_settings
from fulmen_safety.taxonomy import taxonomy

WEIGHTS, CARD = "model.safetensors", "card.json"
_KEY = "fulmen_raise"
_TRAINED = "give the folder that `fulmen raise train --out` wrote"
_AGAIN = "train it again, or install the detector that it came with again"


class Description(Table):
    """What the header of the weights says."""

    kind: Literal["linear"]
    categories: tuple[str, ...]
    curves: dict[str, Curve]
    window: int
    share: float = 0.0
    gate: float | None = None


def write(folder: Path, model: LinearModel, card: Mapping[str, Any]) -> None:
    """Write the model and its card to `folder`, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_directory(folder) as work:
        (work / WEIGHTS).write_bytes(serialised(model))
        (work / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def serialised(model: LinearModel) -> bytes:
    """Return the model as the bytes of a safetensors file: the same model, the same bytes."""
    description = Description(
        kind="linear", categories=model.categories, curves=dict(model.curves), window=model.window,
        share=model.share, gate=model.gate,
    )  # fmt: skip
    text = json.dumps(description.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    tensors = {"weights": model.weights_BH, "scale": model.scale_H, "bias": model.bias_H}
    of_categories = model.weights_BH[:, 1:]
    if of_categories.size and np.abs(of_categories).max() <= four_bits.MOST:
        tensors |= {"weights": model.weights_BH[:, :1], "categories": four_bits.packed(of_categories)}
    if model.encoder:
        kind = bert if isinstance(model.encoder, bert.Bert) else encoder
        tensors |= kind.tensors(model.encoder)
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {_KEY: text})


def read(folder: Path | Traversable) -> LinearModel:
    """Read a model.

    Raises:
        UserError: there is none, or it is of another kind.
        CorruptArtefact: it is damaged or does not fit together.
    """
    with resources.as_file(folder / WEIGHTS) as path:
        return _read(path)


def _read(path: Path) -> LinearModel:
    try:
        with safe_open(str(path), framework="numpy") as header:
            said = (header.metadata() or {}).get(_KEY)
        tensors = load(path.read_bytes())
    except OSError as error:
        raise UserError(f"no {WEIGHTS} to read: {error.strerror or error}", where=str(path), remedy=_TRAINED) from error
    except SafetensorError as error:
        raise CorruptArtefact(f"damaged weights: {error}", where=str(path), remedy=_AGAIN) from error
    if said is None:
        raise UserError("these weights are no model of `fulmen raise train`", where=str(path), remedy=_TRAINED)
    try:
        table = json.loads(said)
    except ValueError as error:
        raise CorruptArtefact(f"damaged description: {error}", where=str(path), remedy=_AGAIN) from error
    description = read_settings(Description, table, f"the header of {path}")
    return _checked(description, tensors, path)


def _checked(description: Description, tensors: Mapping[str, Any], path: Path) -> LinearModel:
    for category in description.categories:
        taxonomy().check(category, str(path))
    heads = 1 if len(description.categories) == 1 else 1 + len(description.categories)
    try:
        table = {**tensors, "weights": _weights(tensors, heads)}
        heard = _encoder(tensors)
    except KeyError as error:
        raise CorruptArtefact(f"there is no tensor {error}", where=str(path), remedy=_AGAIN) from error
    except (ValueError, TypeError) as error:
        raise CorruptArtefact(f"tensors do not fit together: {error}", where=str(path), remedy=_AGAIN) from error
    shapes = {
        name: (tensor.dtype.name, tensor.shape)
        for name, tensor in table.items()
        if not name.startswith(("encoder.", "bert.", "categories"))
    }
    buckets = len(table["weights"])
    due = {"weights": ("int8", (buckets, heads)), "scale": ("float32", (heads,)), "bias": ("float32", (heads,))}
    if shapes != due or buckets < 2 or buckets & (buckets - 1) or "*" not in description.curves:
        raise CorruptArtefact(f"tensors {shapes} do not fit the description", where=str(path), remedy=_AGAIN)
    return LinearModel(
        table["weights"], table["scale"], table["bias"],
        description.categories, description.curves, description.window,
        heard, description.share, description.gate,
    )  # fmt: skip


def _weights(tensors: Mapping[str, Any], heads: int) -> NDArray[np.int8]:
    """Return the weights of all heads, int8 [B, H]. Those of the categories lie apart, in 4 bits; in older
    models all have 8.
    """
    weights: NDArray[np.int8] = tensors["weights"]
    if "categories" not in tensors:
        return weights
    return np.concatenate([weights, four_bits.unpacked(tensors["categories"], heads - 1)], 1)


def _encoder(tensors: Mapping[str, Any]) -> encoder.Encoder | bert.Bert | None:
    kinds = {name.split(".")[0] for name in tensors}
    if "bert" in kinds:
        return bert.from_tensors(tensors)
    return encoder.from_tensors(tensors) if "encoder" in kinds else None
