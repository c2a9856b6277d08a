"""Small random models of every family, made by transformers: what the tests of formats are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

COMMON: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "intermediate_size": 48,
    "initializer_range": 0.2,  # with 0.3, rounding in float32 moves one in a thousand of these by 1e-4
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16}

#: Name -> model type and what its config has beyond `COMMON`.
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied, another head width": ("llama", {"tie_word_embeddings": True, "head_dim": 12}),
    "llama, Llama 3 positions": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, linear positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, windows": ("mistral", {"sliding_window": 9}),
    "mixtral": ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "mixtral, windows": ("mixtral", {"num_local_experts": 4, "sliding_window": 7, "head_dim": 16}),
    "qwen3, yarn positions": (
        "qwen3",
        {
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "qwen3, windows above": (
        "qwen3",
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3},
    ),
    "qwen3_moe": ("qwen3_moe", EXPERTS | {"head_dim": 16, "norm_topk_prob": True, "mlp_only_layers": [0]}),
    "qwen3_moe, plain weights": ("qwen3_moe", EXPERTS | {"head_dim": 8, "norm_topk_prob": False}),
    "olmoe": ("olmoe", EXPERTS | {"clip_qkv": 0.9}),
    "olmoe, no clipping": ("olmoe", EXPERTS | {"norm_topk_prob": True, "num_key_value_heads": 4}),
    "afmoe": (
        "afmoe",
        EXPERTS
        | {
            "num_hidden_layers": 6,
            "head_dim": 16,
            "sliding_window": 9,
            "num_shared_experts": 2,
            "num_dense_layers": 2,
            "mup_enabled": True,
            "route_scale": 2.5,
        },
    ),
    "afmoe, another pattern": (
        "afmoe",
        EXPERTS
        | {
            "head_dim": 8,
            "sliding_window": 5,
            "num_shared_experts": 1,
            "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
        },
    ),
}


def config_of(case: str) -> dict[str, Any]:
    """The `config.json` of `case`, as transformers writes it."""
    import transformers

    family, values = CASES[case]
    document: dict[str, Any] = json.loads(transformers.AutoConfig.for_model(family, **COMMON | values).to_json_string())
    return document


def make(case: str, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model of `case` with random weights, norms and biases included: ones and zeros would hide a mix-up."""
    import transformers

    family, values = CASES[case]
    config = transformers.AutoConfig.for_model(family, **COMMON | values)
    torch.manual_seed(seed)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 1:
                tensor += (0.1 if name.endswith("expert_bias") else 0.3) * torch.randn_like(tensor)
            elif "router" in name or name.endswith("gate.weight"):
                tensor.copy_(torch.randn_like(tensor) / 2)
    return model


def save(case: str, folder: Path, seed: int, dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    """Make the model of `case` and save it as transformers does."""
    model = make(case, seed, dtype)
    model.save_pretrained(folder, **options)  # type: ignore[operator]
    return model


@torch.inference_mode()
def logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Logits [B, T, V] of a model of transformers."""
    result: Tensor = model(tokens_BT, use_cache=False).logits
    return result
