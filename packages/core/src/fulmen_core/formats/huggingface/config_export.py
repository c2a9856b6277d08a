"""A Fulmen config as the Hugging Face config of the family that can say it.

Each family's config is written and read back; the family is right if what comes back is the same network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.formats.huggingface.families import FAMILIES, Family
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan

#: Fields that do not change what a model computes, or that `network` compares layer by layer.
_NOT_COMPARED = frozenset(
    ("balance", "initializer_range", "num_dense_layers", "layer_pattern", "sliding_window", "kv_share")
)
_OF_EXPERTS = frozenset(
    (
        *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "num_shared_experts", "norm_topk_prob"),
        *("router_score", "router_bias", "router_scale"),
    )
)


def export_config(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that computes what `config` describes, and its `config.json`.

    Raises:
        UserError: no family does; the sentence names a field that the nearest one cannot have.
    """
    wanted = network(config)
    nearest: tuple[int, Family, str, Any] | None = None
    for family in FAMILIES.values():
        document = _document(config, family)
        try:
            found = network(import_config(document, "config.json")[1])
        except UserError:  # a value that the family's config cannot hold
            continue
        different = [field for field in wanted if wanted[field] != found.get(field)]
        if not different and family.name == "llama" and config.hidden_size % config.num_attention_heads:
            continue  # transformers' configuration of llama, alone of all, insists on it
        if not different:
            return family, document
        if nearest is None or len(different) < nearest[0]:
            nearest = len(different), family, different[0], found.get(different[0])
    if nearest is None:
        raise UserError("no Hugging Face family can say this model's config")
    _, family, field, found = nearest
    raise UserError(
        f"no Hugging Face family can say {field} {_short(wanted[field])}",
        remedy=f"the nearest, {family.name}, has {_short(found)}",
    )


def network(config: ModelConfig) -> dict[str, Any]:
    """What `config` computes, by field, those that decide over layers spelled out layer by layer."""
    plan = LayerPlan.of(config)
    kinds = {layer.ffn for layer in plan}
    windows = [layer.window for layer in plan]
    values = {key: value for key, value in config.model_dump().items() if key not in _NOT_COMPARED}
    values |= {
        "kv_share": [layer.kv_source for layer in plan],
        "layer_pattern": ["full" if window is None else window for window in windows],
        "num_dense_layers": [layer.ffn for layer in plan],
    }
    if "moe" not in kinds:
        values = {key: value for key, value in values.items() if key not in _OF_EXPERTS}
    if "dense" not in kinds:
        del values["intermediate_size"]
    if not config.qk_norm:
        del values["qk_norm_span"]
    if None not in windows:
        values["rope_layers"] = "all"
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _document(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The family's `config.json`, with as much of `config` as it has keys for."""
    document: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.name,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        **{key: getattr(config, key) for key in _SAME_NAME},
        # 0.02 is what transformers would take; ours may depend on the width
        "initializer_range": config.initializer_range or 0.02,
        **_positions(config),
    }
    windows = [layer.window for layer in LayerPlan.of(config)]
    layer_types = ["full_attention" if window is None else "sliding_attention" for window in windows]
    has_windows = any(windows)
    if family.name in ("mistral", "mixtral"):
        document["sliding_window"] = config.sliding_window if has_windows else None
    if family.name in ("qwen3", "qwen3_moe"):
        document |= {
            "use_sliding_window": has_windows,
            "sliding_window": config.sliding_window if has_windows else None,
        }
    if family.name == "qwen3":
        document |= {"layer_types": layer_types, "max_window_layers": config.num_hidden_layers}
    if family.name in ("mixtral", "olmoe", "qwen3_moe", "afmoe"):
        document |= _experts(config, family)
    if family.name == "olmoe":
        del document["head_dim"]  # the width of a head is hidden_size / num_attention_heads there
        document["clip_qkv"] = config.clip_qkv
    if family.name == "afmoe":
        document |= {
            "layer_types": layer_types,
            "sliding_window": config.sliding_window,
            "mup_enabled": config.embedding_scale != 1,
        }
    return document


_SAME_NAME = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def _experts(config: ModelConfig, family: Family) -> dict[str, Any]:
    width = "intermediate_size" if family.name in ("mixtral", "olmoe") else "moe_intermediate_size"
    values: dict[str, Any] = {
        "num_local_experts" if family.name == "mixtral" else "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        width: config.moe_intermediate_size,
    }
    if family.name in ("olmoe", "qwen3_moe"):
        values["norm_topk_prob"] = config.norm_topk_prob
    if family.name == "qwen3_moe":
        values |= {"mlp_only_layers": list(range(config.num_dense_layers)), "decoder_sparse_step": 1}
    if family.name == "afmoe":
        values |= {
            "num_dense_layers": min(config.num_dense_layers, config.num_hidden_layers),
            "num_shared_experts": config.num_shared_experts,
            "route_scale": config.router_scale,
        }
    return values


def _positions(config: ModelConfig) -> Mapping[str, Any]:
    """Rotary base and scaling, in the spelling of transformers 5 and, for older readers, of transformers 4."""
    scaling = config.rope_scaling
    if scaling is None:
        given: dict[str, Any] = {"rope_type": "default"}
    else:
        keys = {
            "linear": ("rope_type", "factor"),
            "llama3": ("rope_type", "factor", "low_freq_factor", "high_freq_factor"),
            "yarn": ("rope_type", "factor", "beta_fast", "beta_slow", "attention_factor"),
        }[scaling.rope_type]
        given = {key: getattr(scaling, key) for key in keys if getattr(scaling, key) is not None}
        if scaling.rope_type != "linear":
            given["original_max_position_embeddings"] = scaling.original_max_position_embeddings
    return {
        "rope_parameters": {**given, "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling is None else given,
    }
