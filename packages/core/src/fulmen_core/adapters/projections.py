"""The products of a model that an adapter may change, under the names of Hugging Face's modules.

Adapters of routed experts, routers, embeddings and heads are not served: those products have no place for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec

#: Of attention: queries, keys, values, the gate of the heads' results, and their mixing; of the dense feed-forward
#: network, or of a mixture's shared experts: gate, up and down.
Projection = Literal["q", "k", "v", "attention_gate", "o", "gate", "up", "down"]

_ATTENTION: Mapping[Projection, str] = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "attention_gate": "gate_proj",
    "o": "o_proj",
}
_EXPERTS = ".experts"
_ROUTERS = (".gate", ".router")


@dataclass(frozen=True, slots=True)
class ProjectionPlace:
    """A projection of one layer: the sizes of its rows, in elements."""

    layer: int
    projection: Projection
    inputs: int
    outputs: int


def projection_places(config: ModelConfig) -> dict[str, ProjectionPlace]:
    """All projections that an adapter may change, by the name of Hugging Face's module."""
    return {
        f"model.layers.{layer.index}.{name}": place
        for layer in LayerPlan.of(config)
        for name, place in _of(config, layer)
    }


def why_absent(module: str, config: ModelConfig) -> str:
    """Why `module` is none of `projection_places(config)`: a clause that ends a sentence about it."""
    parts = module.split(".")
    number = parts[2] if parts[:2] == ["model", "layers"] and len(parts) > 3 else ""
    if not number.isdecimal():
        return "the model has no such module"
    plan = LayerPlan.of(config)
    if len(number) > 6 or int(number) >= len(plan):
        return f"the model has {len(plan)} layers"
    layer = plan.layers[int(number)]
    if parts[-1] in ("k_proj", "v_proj") and parts[-2] == "self_attn" and not layer.owns_kv:
        return f"layer {layer.index} reads the keys and values of layer {layer.kv_source} and projects none"
    if _EXPERTS in module:
        return "routed experts are served as they are"
    if any(router in module for router in _ROUTERS) and parts[-1] != "gate_proj":
        return "routers are served as they are"
    if layer.ffn == "moe" and parts[3] == "mlp":
        shared = "and no other feed-forward network" if not config.num_shared_experts else "and shared ones"
        return f"layer {layer.index} has routed experts {shared}"
    return "the model has no such module"


def _of(config: ModelConfig, layer: LayerSpec) -> list[tuple[str, ProjectionPlace]]:
    width, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    sizes: dict[Projection, tuple[int, int]] = {"q": (width, queries)}
    if layer.owns_kv:
        sizes["k"] = sizes["v"] = (width, keys)
    if config.attention_gate:
        sizes["attention_gate"] = (width, queries)
    sizes["o"] = (queries, width)
    found = [
        (f"self_attn.{_ATTENTION[projection]}", ProjectionPlace(layer.index, projection, *size))
        for projection, size in sizes.items()
    ]
    mixture = layer.ffn == "moe"
    inner = config.num_shared_experts * config.moe_intermediate_size if mixture else config.intermediate_size
    module = "mlp.shared_experts" if mixture else "mlp"
    if inner:
        found += [
            (f"{module}.gate_proj", ProjectionPlace(layer.index, "gate", width, inner)),
            (f"{module}.up_proj", ProjectionPlace(layer.index, "up", width, inner)),
            (f"{module}.down_proj", ProjectionPlace(layer.index, "down", inner, width)),
        ]
    return found
