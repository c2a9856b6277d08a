"""The parameters of a model, by arithmetic alone: what each is called, its shape, and how many take part in one token.

The checkpoint is checked against this list before anything is allocated; a test holds the network itself against it.
"""

from __future__ import annotations

from math import prod

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec

Shape = tuple[int, ...]


def stays_float32(name: str) -> bool:
    """Whether a tensor is float32 in a model of any precision: routers' biases, whose rounding would rerank experts."""
    return name.endswith(".router.bias")


def parameter_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of a checkpoint, in the order of `Transformer.state_dict()`."""
    width = config.hidden_size
    shapes: dict[str, Shape] = {"embed.weight": (config.vocab_size, width)}
    for layer in LayerPlan.of(config):
        for name, shape in layer_shapes(config, layer).items():
            shapes[f"blocks.{layer.index}.{name}"] = shape
    shapes["norm.weight"] = (width,)
    if not config.tie_word_embeddings:
        shapes["head.weight"] = (config.vocab_size, width)
    return shapes


def layer_shapes(config: ModelConfig, layer: LayerSpec) -> dict[str, Shape]:
    """Name, within its block, and shape of every tensor of one layer."""
    width, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes: dict[str, Shape] = {
        "attention_norm.weight": (width,),
        "attention.q_proj.weight": (queries, width),
        "attention.o_proj.weight": (width, queries),
    }
    if config.attention_gate:
        shapes["attention.gate_proj.weight"] = (queries, width)
    per_head = config.qk_norm_span == "head"
    if config.qk_norm:
        shapes["attention.q_norm.weight"] = (head if per_head else queries,)
    if layer.owns_kv:
        shapes["attention.kv_proj.weight"] = (2 * keys, width)
        if config.qk_norm:
            shapes["attention.k_norm.weight"] = (head if per_head else keys,)
    if config.post_norms:
        shapes["attention_post_norm.weight"] = (width,)
    shapes["ffn_norm.weight"] = (width,)
    shapes |= _feed_forward_shapes(config, layer)
    if config.post_norms:
        shapes["ffn_post_norm.weight"] = (width,)
    return shapes


def _feed_forward_shapes(config: ModelConfig, layer: LayerSpec) -> dict[str, Shape]:
    width = config.hidden_size
    if layer.ffn == "dense":
        return _dense_shapes("ffn", width, config.intermediate_size)
    experts, inner = config.num_experts, config.moe_intermediate_size
    shapes: dict[str, Shape] = {"ffn.router.weight": (experts, width)}
    if config.router_bias:
        shapes["ffn.router.bias"] = (experts,)
    shapes["ffn.experts.gate_up_EGD"] = (experts, 2 * inner, width)
    shapes["ffn.experts.down_EFD"] = (experts, inner, width)
    if config.num_shared_experts:
        shapes |= _dense_shapes("ffn.shared", width, config.num_shared_experts * inner)
    return shapes


def _dense_shapes(name: str, width: int, inner: int) -> dict[str, Shape]:
    return {f"{name}.gate_up.weight": (2 * inner, width), f"{name}.down.weight": (width, inner)}


def parameters_total(config: ModelConfig) -> int:
    """How many parameters the model has; tied embeddings count once."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())


def parameters_active(config: ModelConfig) -> int:
    """How many parameters one token can use: all but the experts that are not selected for it."""
    return parameters_total(config) - sum(_idle(config, layer) for layer in LayerPlan.of(config))


def layer_parameters(config: ModelConfig, layer: LayerSpec) -> tuple[int, int]:
    """Total and active parameters of one layer."""
    total = sum(prod(shape) for shape in layer_shapes(config, layer).values())
    return total, total - _idle(config, layer)


def _idle(config: ModelConfig, layer: LayerSpec) -> int:
    if layer.ffn == "dense":
        return 0
    unselected = config.num_experts - config.num_experts_per_tok
    return unselected * 3 * config.moe_intermediate_size * config.hidden_size
