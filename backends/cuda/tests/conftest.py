"""What the tests of the CUDA backend share: small random models, one thread, and the GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fulmen_backend_cuda.plugin import probe
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu() -> torch.device:
    """The first GPU. Without one the test is skipped with the probe's reason, or fails if FULMEN_REQUIRE has "cuda"."""
    found = probe()
    if not found.ok:
        if "cuda" in os.environ.get("FULMEN_REQUIRE", "").split(","):
            pytest.fail(found.reason)
        pytest.skip(found.reason)
    return torch.device("cuda")


def randomise(model: Transformer, seed: int) -> Transformer:
    """Give norms and biases, which begin as ones and zeros, values that would be missed if they were left out."""
    torch.manual_seed(seed)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 1:
            tensor.data += 0.2 * torch.randn_like(tensor)
    return model


def saved(config: ModelConfig, directory: Path, seed: int) -> Path:
    """A model directory with a random model."""
    torch.manual_seed(seed)
    save_model(randomise(Transformer(config), seed), directory)
    return directory
