"""A training state on disk: weights and optimizer moments as safetensors, the rest as JSON. No pickle, either way.

Layout of the directory::

    model.safetensors        the model's state dict, under the model's names
    optimizer.safetensors    `Optimizer.state_dict`
    state.json               what the stage adds
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fulmen_core.errors import CorruptArtefact
from fulmen_core.files import atomic_write_json, read_json
from fulmen_trainer.optimizers import Optimizer

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save_training_state(
    directory: Path, model: nn.Module, optimizer: Optimizer, extra: Mapping[str, Any] | None = None
) -> None:
    """Write the state into an existing directory. The caller makes the directory appear whole (`atomic_directory`)."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, directory / WEIGHTS)
    save_optimizer_state(directory, optimizer, extra)


def save_optimizer_state(directory: Path, optimizer: Optimizer, extra: Mapping[str, Any] | None = None) -> None:
    """Write all but the weights, beside a `model.safetensors` that `save_model` has written."""
    save_file({name: tensor.contiguous() for name, tensor in optimizer.state_dict().items()}, directory / OPTIMIZER)
    atomic_write_json(directory / STATE, dict(extra or {}))


def load_training_state(directory: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Read the state back into `model` and `optimizer`, bit for bit; returns `extra`.

    Raises:
        CorruptArtefact: a file is missing, truncated, or does not fit the model.
    """
    weights = _load(directory / WEIGHTS)
    own = model.state_dict()
    if weights.keys() != own.keys():
        strange = sorted(weights.keys() ^ own.keys())
        raise CorruptArtefact(
            f"weights {strange[:3]} are missing or unknown",
            where=str(directory),
            remedy="the checkpoint belongs to another model",
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise CorruptArtefact(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {own[name].dtype} {tuple(own[name].shape)}",
                where=str(directory),
                remedy="the checkpoint belongs to another model",
            )
    optimizer.load_state_dict(_load(directory / OPTIMIZER))
    model.load_state_dict(weights)
    extra: dict[str, Any] = read_json(directory / STATE, "training state")
    return extra


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CorruptArtefact(
            f"training state cannot be read ({error})", where=str(path), remedy="restore it or start the stage again"
        ) from error
