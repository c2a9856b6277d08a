"""From the metadata of a GGUF file to a `ModelConfig`: one entry for each architecture that the network can compute.

llama.cpp's names: gguf-py/gguf/constants.py. What it fixes in code instead of writing it down (src/models/*.cpp) is
repeated here: Mixtral and Qwen3-MoE normalise the mixing weights, OLMoE does not; AFMoE has three windows to one full
layer, no positions in full layers, and embeddings times the square root of the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fulmen_core.formats.gguf.container import TensorInfo
from fulmen_core.formats.gguf.fields import Fields
from fulmen_core.formats.gguf.rope import rope_scaling

Tensors = Mapping[str, TensorInfo]
Document = dict[str, Any]

_SOFTMAX, _SIGMOID = 1, 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is read.

    Attributes:
        special: keys of the config beside those that all architectures share.
        interleaved: query and key rows are stored for rotary pairs (2j, 2j+1), and must be sorted back into halves.
    """

    special: Callable[[Fields, Tensors], Document]
    interleaved: bool = False


def family_of(fields: Fields) -> str:
    """What the model's own project calls the architecture."""
    if fields.architecture == "llama" and fields.integer(".expert_count", 0):
        return "mixtral"
    return {"qwen3moe": "qwen3_moe"}.get(fields.architecture, fields.architecture)


def config_document(fields: Fields, tensors: Tensors, frequencies: list[float] | None) -> Document:
    """The model's config as `fulmen_core.model.config_file.parse_config` reads it.

    Args:
        fields: the metadata.
        tensors: the infos of all tensors: some choices show in which tensors there are.
        frequencies: the divisors of the rotary frequencies (`rope_freqs.weight`), if the file has them.

    Raises:
        UserError: the architecture is not known, or a field is missing, wrong, or asks for what the network cannot do.
    """
    architecture = architecture_of(fields)
    heads = fields.integer(".attention.head_count")
    width = fields.integer(".embedding_length")
    if not heads or "token_embd.weight" not in tensors:
        raise fields.refuse("it has no attention heads" if not heads else "tensor 'token_embd.weight' is missing")
    head_dim = fields.integer(".attention.key_length", fields.integer(".rope.dimension_count", width // heads))
    for key in (".attention.value_length", ".rope.dimension_count"):
        if fields.integer(key, head_dim) != head_dim:
            raise fields.refuse(f"{fields.architecture}{key} differs from the head width {head_dim}")
    context = fields.integer(".context_length")
    document: Document = {
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "num_hidden_layers": fields.integer(".block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer(".attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "layer_pattern": "F",
        "kv_share": 1,
        "intermediate_size": fields.integer(".feed_forward_length", fields.integer(".expert_feed_forward_length", 0)),
        "rope_theta": fields.number(".rope.freq_base", 10_000.0),
        "rope_scaling": rope_scaling(fields, head_dim, frequencies),
        "rms_norm_eps": fields.number(".attention.layer_norm_rms_epsilon"),
        "qk_norm": False,
        "tie_word_embeddings": "output.weight" not in tensors,
        "balance": {"expert_groups": 1, "partitions": 1},
    }
    window = fields.integer(".attention.sliding_window", 0)
    if 0 < window < context:
        document |= {"layer_pattern": "S", "sliding_window": window}
    return document | architecture.special(fields, tensors) | _special_ids(fields)


def architecture_of(fields: Fields) -> Architecture:
    """How this file is read.

    Raises:
        UserError: its architecture is not one of `ARCHITECTURES`.
    """
    if fields.architecture not in ARCHITECTURES:
        raise fields.refuse(
            f"the architecture {fields.architecture!r} is not supported",
            remedy=f"take a model of {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[fields.architecture]


def _special_ids(fields: Fields) -> Document:
    """Answers end with the end of the text, of the turn, or of a message that calls a tool."""
    ids = {
        name: fields.integer(f"tokenizer.ggml.{name}_token_id", -1) for name in ("bos", "padding", "eos", "eot", "eom")
    }
    ends = list(dict.fromkeys(ids[name] for name in ("eos", "eot", "eom") if ids[name] >= 0))
    document: Document = {"bos_token_id": ids["bos"], "pad_token_id": ids["padding"]}
    document = {key: token_id for key, token_id in document.items() if token_id >= 0}
    return document | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def _llama(fields: Fields, _tensors: Tensors) -> Document:
    """Llama, Mistral, Yi, SmolLM, and Mixtral, which llama.cpp all calls llama."""
    return _experts(fields, norm_topk_prob=True) if fields.integer(".expert_count", 0) else {}


def _qwen3(_fields: Fields, _tensors: Tensors) -> Document:
    return {"qk_norm": True}


def _qwen3moe(fields: Fields, _tensors: Tensors) -> Document:
    return {"qk_norm": True} | _experts(fields, norm_topk_prob=True)


def _olmoe(fields: Fields, _tensors: Tensors) -> Document:
    clip = fields.number(".attention.clamp_kqv", 0.0)
    document = {"qk_norm": True, "qk_norm_span": "projection", "clip_qkv": clip or None}
    return document | _experts(fields, norm_topk_prob=False)


def _afmoe(fields: Fields, tensors: Tensors) -> Document:
    gating = fields.integer(".expert_gating_func", _SIGMOID)
    if gating not in (_SOFTMAX, _SIGMOID):
        raise fields.wrong(".expert_gating_func", gating, f"{_SOFTMAX} or {_SIGMOID}")
    return _experts(fields, norm_topk_prob=fields.flag(".expert_weights_norm", False)) | {
        "layer_pattern": "SSSF",
        "sliding_window": fields.integer(".attention.sliding_window"),
        "rope_layers": "window",
        "qk_norm": True,
        "attention_gate": True,
        "post_norms": True,
        "embedding_scale": math.sqrt(fields.integer(".embedding_length")),
        "num_dense_layers": fields.integer(".leading_dense_block_count", 0),
        "num_shared_experts": fields.integer(".expert_shared_count", 0),
        "router_score": "sigmoid" if gating == _SIGMOID else "softmax",
        "router_bias": any(name.endswith(".exp_probs_b.bias") for name in tensors),
        "router_scale": fields.number(".expert_weights_scale", 1.0) or 1.0,
    }


def _experts(fields: Fields, *, norm_topk_prob: bool) -> Document:
    inner = fields.integer(".expert_feed_forward_length", fields.integer(".feed_forward_length", 0))
    return {
        "num_experts": fields.integer(".expert_count"),
        "num_experts_per_tok": fields.integer(".expert_used_count"),
        "moe_intermediate_size": inner,
        "norm_topk_prob": norm_topk_prob,
    }


#: `general.architecture` -> how it is read.
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(_llama, interleaved=True),
    "qwen3": Architecture(_qwen3),
    "qwen3moe": Architecture(_qwen3moe),
    "olmoe": Architecture(_olmoe),
    "afmoe": Architecture(_afmoe),
}
