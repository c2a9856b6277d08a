"""Small models with every kind of layer, and runners of them on CPU tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fulmen_backend_cuda.runner import CudaRunner
from fulmen_backend_cuda.support import EMULATED
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.runner import EngineLimits

CONTEXT = 90
VOCABULARY = 61
BLOCK = 16


def small_config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": CONTEXT,
        "layer_pattern": "SSSF",
        "sliding_window": 20,
        "kv_share": 2,
        "intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "initializer_range": 0.3,
        "balance": BalanceConfig(expert_groups=2, partitions=2),
    }
    return ModelConfig.model_validate(values | changes)


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
