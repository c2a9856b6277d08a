"""The arrays of an adapter, ready to be added to a model's products.

Legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from fulmen_core.adapters.description import WEIGHTS_FILE, AdapterDescription, ModuleDelta, tensor_names
from fulmen_core.adapters.projections import Projection, projection_places
from fulmen_core.errors import CorruptArtefact
from fulmen_core.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one projection, ``y_O += b_OR a_RI x_I``, both float32; the scaling is in `b_OR`."""

    a_RI: NDArray[np.float32]
    b_OR: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits a model: what it is, and its changes by layer and projection."""

    description: AdapterDescription
    deltas: Mapping[tuple[int, Projection], LowRank]


def load_adapter(directory: Path, config: ModelConfig, max_rank: int) -> Adapter:
    """Read the adapter in the PEFT folder `directory` for a model of `config`.

    Raises:
        UserError: there is none, it is of a kind that is not served, or it does not fit the model or `max_rank`.
        CorruptArtefact: a file is damaged, the two contradict each other, or a value is not finite.
    """
    description = AdapterDescription.inspect(directory)
    description.check(config, max_rank)
    places = projection_places(config)
    path = directory / WEIGHTS_FILE
    deltas: dict[tuple[int, Projection], LowRank] = {}
    try:
        # `safe_open` keeps some kilobytes of each file for ever
        tensors = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise CorruptArtefact(f"weights file {path} is corrupt: {error}") from error
    for module, delta in description.modules.items():
        deltas[places[module].layer, places[module].projection] = _low_rank(tensors, module, delta, path)
    return Adapter(description, deltas)


def _low_rank(tensors: Mapping[str, Mapping[str, Any]], module: str, delta: ModuleDelta, path: Path) -> LowRank:
    if not all(name in tensors for name in tensor_names(module)):
        raise CorruptArtefact(f"'{module}' is gone while it was read", where=str(path), remedy="load it again")
    a_RI, b_OR = (_as_float32(tensors[name]) for name in tensor_names(module))
    if a_RI.shape != (delta.rank, delta.inputs) or b_OR.shape != (delta.outputs, delta.rank):
        raise CorruptArtefact(f"'{module}' changed while it was read", where=str(path), remedy="load it again")
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        scaled_OR = np.ascontiguousarray(b_OR * np.float32(delta.scaling))
    if not (np.isfinite(a_RI).all() and np.isfinite(scaled_OR).all()):
        raise CorruptArtefact(f"'{module}' has values that are not finite", where=str(path))
    return LowRank(a_RI, scaled_OR)


def _as_float32(tensor: Mapping[str, Any]) -> NDArray[np.float32]:
    kind, shape = tensor["dtype"], tensor["shape"]
    if kind == "BF16":  # the upper half of a float32
        bits = np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    return (
        np.frombuffer(tensor["data"], {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[kind])
        .astype(np.float32)
        .reshape(shape)
    )
