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
    short_gate: float | None = None


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
        share=model.share, gate=model.gate, short_gate=model.short_gate,
    )  # fmt: skip
    text = json.dumps(description.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    tensors = {"weights": model.weights_B[:, None], "scale": model.scale_H, "bias": model.bias_H}
    if model.weights_AC.size and np.abs(model.weights_AC).max() <= four_bits.MOST:
        tensors["categories"] = four_bits.packed(model.weights_AC)
    elif model.weights_AC.size:  # read from an older one
        tensors["weights"] = np.concatenate([tensors["weights"], model.weights_AC], 1)
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
        tensors = load(path.read_bytes())
        with safe_open(str(path), framework="numpy") as header:
            said = (header.metadata() or {}).get(_KEY)
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
        weights_B1, weights_AC = _tables(tensors, heads)
        shapes = {name: (tensors[name].dtype.name, tensors[name].shape) for name in ("scale", "bias")}
        heard = _encoder(tensors)
    except KeyError as error:
        raise CorruptArtefact(f"there is no tensor {error}", where=str(path), remedy=_AGAIN) from error
    except (ValueError, TypeError, IndexError) as error:
        raise CorruptArtefact(f"tensors do not fit together: {error}", where=str(path), remedy=_AGAIN) from error
    due: dict[str, tuple[str, tuple[int, ...]]] = {"scale": ("float32", (heads,)), "bias": ("float32", (heads,))}
    for name, table, columns in (("weights", weights_B1, 1), ("categories", weights_AC, heads - 1)):
        shapes[name] = (table.dtype.name, table.shape)
        due[name] = ("int8", (1 << max(1, len(table).bit_length() - 1), columns))
    if shapes != due or "*" not in description.curves:
        raise CorruptArtefact(f"tensors {shapes} do not fit the description", where=str(path), remedy=_AGAIN)
    return LinearModel(
        np.ascontiguousarray(weights_B1[:, 0]), np.ascontiguousarray(weights_AC), tensors["scale"], tensors["bias"],
        description.categories, description.curves, description.window,
        heard, description.share, description.gate, description.short_gate,
    )  # fmt: skip


def _tables(tensors: Mapping[str, Any], heads: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the weights of head 0, int8 [B, 1], and of the categories, [A, C]. These lie apart, in 4 bits; in older
    models they are further columns of the first, in 8.
    """
    weights: NDArray[np.int8] = tensors["weights"]
    if "categories" not in tensors:
        return weights[:, :1], weights[:, 1:]
    return weights, four_bits.unpacked(tensors["categories"], heads - 1)


def _encoder(tensors: Mapping[str, Any]) -> encoder.Encoder | bert.Bert | None:
    kinds = {name.split(".")[0] for name in tensors}
    if "bert" in kinds:
        return bert.from_tensors(tensors)
    return encoder.from_tensors(tensors) if "encoder" in kinds else None
