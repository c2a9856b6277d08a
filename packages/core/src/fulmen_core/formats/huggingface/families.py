"""The families of open decoders that are read and written: what each calls its tensors and leaves unsaid in its config.

Defaults are those of transformers' configuration classes, for keys that a `config.json` may lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    Attributes:
        name: its `model_type`.
        architecture: the class of transformers that holds it.
        defaults: values of keys that may be missing.
        fixed: the only value of keys that this network cannot vary, beside those of `FIXED`.
        ffn_norm: the norm before the feed-forward network.
        experts: the module that holds router and experts, in files.
        router: the router's weight in it.
        gate_up_down: an expert's three projections.
    """

    name: str
    architecture: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ffn_norm: str = "post_attention_layernorm"
    experts: str = "mlp"
    router: str = "gate.weight"
    gate_up_down: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


#: Keys that must have this value, or be missing, in every family: another changes what the model computes.
FIXED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
    "partial_rotary_factor": 1.0,
}

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("llama", "LlamaForCausalLM"),
        Family("mistral", "MistralForCausalLM", {"sliding_window": 4096}),
        Family("qwen3", "Qwen3ForCausalLM", {"head_dim": 128, "max_window_layers": 28}),
        Family(
            "mixtral",
            "MixtralForCausalLM",
            {"rms_norm_eps": 1e-5, "rope_theta": 1e6},
            experts="block_sparse_moe",
            gate_up_down=("w1", "w3", "w2"),
        ),
        Family("olmoe", "OlmoeForCausalLM", {"rms_norm_eps": 1e-5}),
        Family("qwen3_moe", "Qwen3MoeForCausalLM"),
        Family(
            "afmoe",
            "AfmoeForCausalLM",
            {"rms_norm_eps": 1e-5, "head_dim": 128, "num_dense_layers": 1, "global_attn_every_n_layers": 4},
            # keys of the first checkpoints' own code, which transformers' network takes for granted
            {"score_func": "sigmoid", "route_norm": True, "n_group": 1, "num_expert_groups": 1},
            ffn_norm="pre_mlp_layernorm",
            router="router.gate.weight",
        ),
    )
}
