"""Attention and its cache as nodes: one operator that rotates, appends in place, evicts from windows, and attends.

``com.microsoft::GroupQueryAttention``:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md

Legend: B batch, T time, D model width, H heads, K kv heads, h head width, C cache capacity, A = H*h, G = K*h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fulmen_backend_onnxruntime.graph_builder import CONTRIB
from fulmen_backend_onnxruntime.products import Array, Products
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerSpec

Weights = Callable[[str], Array]

#: A score whose exponential is zero.
_NOTHING = np.finfo(np.float32).min


class Step(NamedTuple):
    """What all layers are told of a step: names of values.

    Attributes:
        last_B: int32, length of each sequence after the step, less one.
        longest: int32, the longest of them.
        new_B: int32, tokens of each sequence in this step: the others of its row are padding.
        cos, sin: [positions, h/2], in the caches' dtype; None: no layer rotates.
        positions_BT: int64, where the attention operator does not rotate itself.
    """

    last_B: str
    longest: str
    new_B: str
    cos: str | None
    sin: str | None
    positions_BT: str | None


def rotates_inside(config: ModelConfig) -> bool:
    """Whether the attention operator can rotate: ONNX Runtime 1.32 asks for heads of a multiple of 16."""
    return config.head_dim % 16 == 0


class Attention:
    """Adds the attention of a layer to a graph. Its caches are replaced by what they are after the step.

    Args:
        padded: whether full caches are told of padding. Layers that borrow them cannot be.
    """

    def __init__(self, products: Products, config: ModelConfig, padded: bool) -> None:
        self._products, self._graph, self._config, self._padded = products, products.graph, config, padded
        self._queries = config.num_attention_heads * config.head_dim
        self._keys = config.num_key_value_heads * config.head_dim
        self._scale = config.head_dim**-0.5

    def add(self, layer: LayerSpec, x_BTD: str, weights: Weights, step: Step, caches: list[tuple[str, str]]) -> str:
        """The mixed heads [B, T, D] of the normalised input."""
        graph, config = self._graph, self._config
        names = ["attention.q_proj.weight"]
        widths = {"q": self._queries}
        if layer.owns_kv:
            names.append("attention.kv_proj.weight")
            widths |= {"k": self._keys, "v": self._keys}
        if config.attention_gate:
            names.append("attention.gate_proj.weight")
            widths |= {"gate": self._queries}
        bits = self._products.form.other_bits
        weight = np.concatenate([weights(name) for name in names])
        if self._by_products(layer) and not config.qk_norm:
            weight[: self._queries] *= np.float32(self._scale)
        projected = self._products.dense(x_BTD, "attention.in", weight, bits)
        rotates = config.rope_layers == "all" or layer.window is not None
        parts = self._prepared(projected, widths, layer, weights, rotates, step)
        o_BTA = self._attend(layer, parts, rotates, step, caches)
        if "gate" in parts:
            o_BTA = graph.node("Mul", o_BTA, graph.node("Sigmoid", parts["gate"]))
        weight = weights("attention.o_proj.weight")
        return self._products.dense(o_BTA, "attention.out", weight, bits)

    def _by_products(self, layer: LayerSpec) -> bool:
        """Whether scores are made by products and not by the operator's fused kernel: scaled queries make them faster.

        The fused kernel computes a single token with 4 lanes whatever the CPU has. An operator with a sink does not
        take it; one of next to minus infinity adds nothing to a softmax. Products keep the scores of all tokens of a
        step for each place of the cache: that is little where the cache is bounded by a window.
        """
        return layer.window is not None and self._config.clip_qkv is None and self._products.form.dtype == "float32"

    def _prepared(
        self, projected: str, widths: dict[str, int], layer: LayerSpec, weights: Weights, rotates: bool, step: Step
    ) -> dict[str, str]:
        """Queries, keys, values and gate, or "qkv" in one where nothing is done to them."""
        config = self._config
        outside = rotates and not rotates_inside(config)
        if layer.owns_kv and not (config.qk_norm or config.clip_qkv or outside):
            widths = {"qkv": widths["q"] + widths["k"] + widths["v"]} | {
                name: width for name, width in widths.items() if name == "gate"
            }
        parts = dict(zip(widths, self._split(projected, list(widths.values())), strict=True))
        for name, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
            if name in parts:
                norm_A = weights(f"attention.{name}_norm.weight") if config.qk_norm else None
                if norm_A is not None and name == "q" and self._by_products(layer):
                    norm_A = norm_A * np.float32(self._scale)
                parts[name] = self._placed(parts[name], name, heads, norm_A, step if outside else None)
        if "v" in parts and config.clip_qkv is not None:
            parts["v"] = self._clipped(parts["v"])
        return parts

    def _split(self, x: str, widths: list[int]) -> list[str]:
        if len(widths) == 1:
            return [x]
        return self._graph.nodes("Split", len(widths), x, self._graph.constant(widths), axis=-1)

    def _placed(self, x_BTA: str, name: str, heads: int, norm_A: Array | None, rotation: Step | None) -> str:
        """Queries or keys, normalised, clipped, and rotated where the attention operator does not."""
        graph, config = self._graph, self._config
        if norm_A is not None:
            weight = graph.weight(f"attention.{name}_norm", norm_A)
            if config.qk_norm_span == "head":
                x_BTA = graph.contrib(
                    "BranchwiseRMSNorm", x_BTA, weight, num_branches=heads, epsilon=config.rms_norm_eps
                )
            else:
                x_BTA = graph.node("RMSNormalization", x_BTA, weight, epsilon=config.rms_norm_eps)
        if config.clip_qkv is not None:
            x_BTA = self._clipped(x_BTA)
        if rotation is not None:
            x_BTA = graph.contrib(
                "RotaryEmbedding", x_BTA, rotation.positions_BT, rotation.cos, rotation.sin, num_heads=heads
            )
        return x_BTA

    def _clipped(self, x: str) -> str:
        limit = self._config.clip_qkv
        assert limit is not None
        return self._graph.node(
            "Clip", x, self._graph.constant(-limit, "float32"), self._graph.constant(limit, "float32")
        )

    def _attend(
        self,
        layer: LayerSpec,
        parts: dict[str, str],
        rotates: bool,
        step: Step,
        caches: list[tuple[str, str]],
    ) -> str:
        graph, config = self._graph, self._config
        inside = rotates and rotates_inside(config)
        attributes: dict[str, Any] = {
            "num_heads": config.num_attention_heads,
            "kv_num_heads": config.num_key_value_heads,
            "do_rotary": int(inside),
        }
        if layer.window is not None:
            attributes |= {"local_window_size": layer.window, "sliding_window_cache": 1}
        sink = None
        if self._by_products(layer):
            attributes["scale"] = 1.0
            sink = graph.constant(np.full(config.num_attention_heads, _NOTHING), "float32")
        query = self._products.narrowed(parts["qkv" if "qkv" in parts else "q"])
        key = value = None
        if "k" in parts:
            key, value = self._products.narrowed(parts["k"]), self._products.narrowed(parts["v"])
        elif not layer.owns_kv:
            # Keys of length zero: the operator then only reads the cache, which the owner's layer has already updated.
            bounds = [graph.constant(bound) for bound in ([0, 0], [0, self._keys], [1, 2])]
            key = value = graph.node("Slice", query, *bounds)
        angles = (step.cos, step.sin) if inside else (None, None)
        operands = [query, key, value, *caches[layer.cache], step.last_B, step.longest, *angles]
        operands += [None, None, sink]
        if layer.owns_kv and (layer.window is not None or self._padded):
            operands += [None] * 4 + [step.new_B]
        outputs = 3 if layer.owns_kv else 1
        o_BTA, *present = graph.nodes("GroupQueryAttention", outputs, *operands, domain=CONTRIB, **attributes)
        if present:
            caches[layer.cache] = present[0], present[1]
        return self._products.widened(o_BTA)
