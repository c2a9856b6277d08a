"""The weights of a model directory as NumPy arrays in float32, read when they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.parameters import parameter_shapes
from fulmen_core.model.safetensors_reader import StoredTensors


class CheckpointWeights:
    """The tensors that the config describes, by name. Memory holds what the caller keeps.

    Raises:
        UserError: there are no weights.
        CorruptArtefact: they are truncated, or not those that the config describes.
    """

    def __init__(self, directory: Path, config: ModelConfig) -> None:
        self._stored = StoredTensors(directory)
        self._stored.check(parameter_shapes(config).items())

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._stored.load(name).to(torch.float32).numpy()
        return array

    def of_layer(self, index: int, name: str) -> NDArray[np.float32]:
        """A tensor of a layer's block."""
        return self[f"blocks.{index}.{name}"]
