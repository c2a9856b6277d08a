"""Small models with every kind of layer, and runners of them on CPU tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fulmen_backend_cuda.runner import CudaRunner
from fulmen_backend_cuda.support import EMULATED
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.model.config import ModelConfig
from fulmen_core.runner import EngineLimits
from fulmen_testing.models import DEEP, with_changes

CONTEXT = 90
BLOCK = 16


def small_config(**changes: Any) -> ModelConfig:
    """`DEEP` with narrower heads and windows of more than one block, and what is changed in it."""
    narrow = {"head_dim": 8, "max_position_embeddings": CONTEXT, "sliding_window": 20}
    return with_changes(DEEP, narrow | changes)


def make(
    directory: Path,
    limits: EngineLimits,
    dtype: Dtype = "float32",
    quantize: Quantization | None = None,
    padded: bool = False,
    compiles: bool = False,
) -> CudaRunner:
    return CudaRunner(
        directory,
        limits,
        dtype,
        quantize=quantize,
        device="cpu",
        support=EMULATED,
        padded=padded,
        compiles=compiles,
    )
