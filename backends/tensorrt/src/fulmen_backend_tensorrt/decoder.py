"""The graph of a layer plan in standard operators that TensorRT builds: opset 24, static caches, one step of a batch.

In: a config and the checkpoint's tensors by name. Out: an ONNX model.

* Caches are inputs and outputs of a static capacity. *TensorScatter* writes the new keys and values at `position_ids`,
  in place where input and output are one buffer. A full cache holds the whole context. A window cache is a ring: the
  position modulo its capacity says where a token lies. The operator's own circular mode is refused by TensorRT; as the
  linear mode is used, a step must not write across the end of a ring (`fulmen_backend_tensorrt.launches` sees to that).
* *Attention* reads the whole cache under a mask that follows from positions alone. A layer that borrows its keys and
  values is spelled out as products and a softmax: TensorRT-RTX 1.7 crashes when two Attention operators read one cache.
* Experts are inputs too, so that the engines for decoding and for prompts share one copy in memory: see `mixture`.

Legend: B batch, T time, C capacity of a cache, D model width, H heads, K kv heads, G = H/K, h head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.graph_writer import ELEMENT, GraphWriter, WeightFile
from fulmen_backend_tensorrt.mixture import Mixture, write_mixture, write_swiglu
from fulmen_backend_tensorrt.projections import write_product
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec
from fulmen_core.model.rope import rotary

Load = Callable[[str], Tensor]


def write_decoder(
    config: ModelConfig,
    load: Load,
    weights: WeightFile,
    capacities: Capacities,
    dtype: Dtype,
    mixture: Mixture,
    quantize: Quantization | None = None,
    ranges: Mapping[str, float] | None = None,
) -> onnx.ModelProto:
    """Write the graph of one step.

    Inputs are `input_ids` and `position_ids`, int64 [B, T], positions rising by one along each row; for each cache of
    the plan `past_key_values.N.key|value` [B, K, C, h]; and the experts. Outputs are `logits`, float32 [B, V], after
    the last token of each row, and `present.N.key|value`.
    """
    return _Decoder(config, load, GraphWriter(dtype, weights, quantize, ranges), capacities, mixture).write()


class _Decoder:
    def __init__(
        self,
        config: ModelConfig,
        load: Load,
        graph: GraphWriter,
        capacities: Capacities,
        mixture: Mixture,
    ) -> None:
        self.config, self.load, self.graph = config, load, graph
        self.capacities, self.mixture = capacities, mixture
        self.plan = LayerPlan.of(config)
        self.caches: dict[int, tuple[str, str]] = {}
        self.ids_BT = graph.input("input_ids", TensorProto.INT64, ("batch", "length"))
        self.positions_BT = graph.input("position_ids", TensorProto.INT64, ("batch", "length"))
        cos, sin = rotary(
            torch.arange(capacities.full), config.head_dim, config.rope_theta, scaling=config.rope_scaling
        )
        self.angles = [
            graph.weight(f"rotary.{name}", lambda table=table: table.flatten(1))  # type: ignore[misc]
            for name, table in (("cos", cos), ("sin", sin))
        ]

    def write(self) -> onnx.ModelProto:
        graph, config = self.graph, self.config
        windows = {layer.window for layer in self.plan}
        masks = {window: self._mask(window) for window in windows}
        writes = {window: self._write_index(window) for window in windows}

        x_BTD = graph.op("Gather", graph.weight("embed.weight", lambda: self.load("embed.weight")), self.ids_BT)
        if config.embedding_scale != 1:
            x_BTD = graph.op("Mul", x_BTD, graph.scalar(config.embedding_scale))
        for layer in self.plan:
            x_BTD = self._block(layer, x_BTD, masks[layer.window], writes[layer.window])
        last_B1D = self._slice(x_BTD, -1, 2**62)
        last_BD = graph.op("Squeeze", self._norm(last_B1D, "norm.weight"), graph.integers(1))
        head = "embed.weight" if config.tie_word_embeddings else "head.weight"
        graph.op("Cast", self._linear(last_BD, head), to=TensorProto.FLOAT, name="logits")
        graph.output("logits", TensorProto.FLOAT, ("batch", config.vocab_size))
        for cache in sorted(self.caches):
            for present in self.caches[cache]:
                graph.output(present, ELEMENT[graph.dtype], self._cache_shape(cache))
        return graph.model("fulmen", {"experts": self.mixture})

    def _block(self, layer: LayerSpec, x_BTD: str, mask_B1TC: str, write_B: str) -> str:
        graph, config, prefix = self.graph, self.config, f"blocks.{layer.index}."
        normed_BTD = self._norm(x_BTD, f"{prefix}attention_norm.weight")
        y_BTD = self._attention(layer, normed_BTD, mask_B1TC, write_B)
        if config.post_norms:
            y_BTD = self._norm(y_BTD, f"{prefix}attention_post_norm.weight")
        x_BTD = graph.op("Add", x_BTD, y_BTD)
        normed_BTD = self._norm(x_BTD, f"{prefix}ffn_norm.weight")
        if layer.ffn == "moe":
            y_BTD = write_mixture(graph, config, self.load, layer.index, normed_BTD, self.mixture)
        else:
            y_BTD = write_swiglu(graph, self.load, f"{prefix}ffn.", normed_BTD)
        if config.post_norms:
            y_BTD = self._norm(y_BTD, f"{prefix}ffn_post_norm.weight")
        return graph.op("Add", x_BTD, y_BTD)

    def _attention(self, layer: LayerSpec, x_BTD: str, mask_B1TC: str, write_B: str) -> str:
        graph, config = self.graph, self.config
        prefix = f"blocks.{layer.index}.attention."
        q_BHTh = self._place(layer, self._linear(x_BTD, f"{prefix}q_proj.weight"), f"{prefix}q_norm.weight")
        if layer.owns_kv:
            self.caches[layer.cache] = self._write_cache(layer, x_BTD, write_B)
        cache = self.caches[layer.cache]
        if layer.owns_kv:
            o_BHTh = graph.op("Attention", q_BHTh, *cache, mask_B1TC, scale=config.head_dim**-0.5)
        else:
            o_BHTh = self._attend(q_BHTh, *cache, mask_B1TC)
        o_BTHh = graph.op("Transpose", o_BHTh, perm=(0, 2, 1, 3))
        o_BTA = graph.op("Reshape", o_BTHh, graph.integers(0, 0, config.num_attention_heads * config.head_dim))
        if config.attention_gate:
            gate_BTA = graph.op("Sigmoid", self._linear(x_BTD, f"{prefix}gate_proj.weight"))
            o_BTA = graph.op("Mul", o_BTA, gate_BTA)
        return self._linear(o_BTA, f"{prefix}o_proj.weight")

    def _write_cache(self, layer: LayerSpec, x_BTD: str, write_B: str) -> tuple[str, str]:
        graph, config = self.graph, self.config
        prefix, width = f"blocks.{layer.index}.attention.", config.num_key_value_heads * config.head_dim
        kv_BTA = self._linear(x_BTD, f"{prefix}kv_proj.weight")
        k_BTA, v_BTA = graph.ops("Split", (kv_BTA, graph.integers(width, width)), 2, axis=-1)
        new = self._place(layer, k_BTA, f"{prefix}k_norm.weight"), self._heads(self._clip(v_BTA))
        key, value = (
            self._scatter(layer.cache, kind, new_BKTh, write_B)
            for kind, new_BKTh in zip(("key", "value"), new, strict=True)
        )
        return key, value

    def _scatter(self, cache: int, kind: str, new_BKTh: str, write_B: str) -> str:
        graph = self.graph
        past_BKCh = graph.input(f"past_key_values.{cache}.{kind}", ELEMENT[graph.dtype], self._cache_shape(cache))
        present = f"present.{cache}.{kind}"  # TensorRT wants the operator's own output to be the graph's
        return graph.op("TensorScatter", past_BKCh, new_BKTh, write_B, axis=2, mode="linear", name=present)

    def _place(self, layer: LayerSpec, x_BTA: str, norm: str) -> str:
        """Queries or keys of a projection's rows: [B, H, T, h], normalised, clipped and rotated."""
        config, spans = self.config, self.config.qk_norm_span == "projection"
        if config.qk_norm and spans:
            x_BTA = self._norm(x_BTA, norm)
        x_BHTh = self._heads(x_BTA, norm if config.qk_norm and not spans else None)
        x_BHTh = self._clip(x_BHTh)
        if config.rope_layers == "window" and layer.window is None:
            return x_BHTh
        return self.graph.op("RotaryEmbedding", x_BHTh, *self.angles, self.positions_BT)

    def _heads(self, x_BTA: str, norm: str | None = None) -> str:
        x_BTHh = self.graph.op("Reshape", x_BTA, self.graph.integers(0, 0, -1, self.config.head_dim))
        if norm is not None:
            x_BTHh = self._norm(x_BTHh, norm)
        return self.graph.op("Transpose", x_BTHh, perm=(0, 2, 1, 3))

    def _clip(self, x: str) -> str:
        clip = self.config.clip_qkv
        return x if clip is None else self.graph.op("Clip", x, self.graph.scalar(-clip), self.graph.scalar(clip))

    def _attend(self, q_BHTh: str, k_BKCh: str, v_BKCh: str, mask_B1TC: str) -> str:
        """Attention as products, the softmax in float32; the heads of one kv head lie in a dimension of their own."""
        graph, config = self.graph, self.config
        kv_heads, width = config.num_key_value_heads, config.head_dim
        group = config.num_attention_heads // kv_heads
        q_BHTh = graph.op("Mul", q_BHTh, graph.scalar(width**-0.5))
        q_BKGTh = graph.op("Reshape", q_BHTh, graph.integers(0, kv_heads, group, -1, width))
        k_BK1hC = graph.op("Unsqueeze", graph.op("Transpose", k_BKCh, perm=(0, 1, 3, 2)), graph.integers(2))
        v_BK1Ch = graph.op("Unsqueeze", v_BKCh, graph.integers(2))
        scores_BKGTC = graph.cast(graph.op("MatMul", q_BKGTh, k_BK1hC), "float32")
        seen_B11TC = graph.op("Unsqueeze", mask_B1TC, graph.integers(1))
        scores_BKGTC = graph.op("Where", seen_B11TC, scores_BKGTC, graph.scalar(-1e30, "float32"))
        shares_BKGTC = graph.cast(graph.op("Softmax", scores_BKGTC, axis=-1), graph.dtype, "float32")
        o_BKGTh = graph.op("MatMul", shares_BKGTC, v_BK1Ch)
        return graph.op("Reshape", o_BKGTh, graph.integers(0, config.num_attention_heads, -1, width))

    def _mask(self, window: int | None) -> str:
        """Which places of a cache each query sees: bool [B, 1, T, C]."""
        graph, capacity = self.graph, self.capacities.tokens(window)
        places_C = graph.constant(np.arange(capacity, dtype=np.int64).reshape(1, 1, 1, capacity))
        query_B1T1 = graph.op("Unsqueeze", self.positions_BT, graph.integers(1, 3))
        if window is None:
            return graph.op("LessOrEqual", places_C, query_B1T1)
        # place j holds the latest position that is j modulo the capacity and is written after this step
        newest_B111 = graph.op("Unsqueeze", self._position_at(-1), graph.integers(1, 2))
        ahead = graph.op("Sub", graph.op("Add", newest_B111, graph.integers(capacity)), places_C)
        held_B11C = graph.op("Sub", newest_B111, self._modulo(ahead, capacity))
        oldest_B1T1 = graph.op("Sub", query_B1T1, graph.integers(window))
        near = graph.op(
            "And", graph.op("LessOrEqual", held_B11C, query_B1T1), graph.op("Greater", held_B11C, oldest_B1T1)
        )
        return graph.op("And", near, graph.op("GreaterOrEqual", held_B11C, graph.integers(0)))

    def _write_index(self, window: int | None) -> str:
        """Where in a cache the first of the new tokens goes, int64 [B].

        Computed in 32 bits: TensorRT writes by 32-bit indices, and where it narrows more than one 64-bit index itself,
        TensorRT-RTX 1.7 cannot build rounded weights ("there are uses before defs").
        """
        graph = self.graph
        start_B = graph.op("Squeeze", graph.op("Cast", self._position_at(0), to=TensorProto.INT32), graph.integers(1))
        if window is not None:  # the ring of a window cache begins again where it is full
            start_B = graph.op("Mod", start_B, graph.constant(np.array([self.capacities.tokens(window)], np.int32)))
        return graph.op("Cast", start_B, to=TensorProto.INT64)

    def _modulo(self, value: str, divisor: int) -> str:
        return self.graph.op("Mod", value, self.graph.integers(divisor))

    def _position_at(self, index: int) -> str:
        """The first or last position of each row, [B, 1]."""
        return self._slice(self.positions_BT, index, 1 if index == 0 else 2**62)

    def _slice(self, value: str, begin: int, end: int) -> str:
        graph = self.graph
        return graph.op("Slice", value, graph.integers(begin), graph.integers(end), graph.integers(1))

    def _linear(self, x_D: str, name: str) -> str:
        return write_product(self.graph, self.load, name, x_D)

    def _norm(self, x_D: str, name: str) -> str:
        graph = self.graph
        weight = graph.weight(name, lambda: self.load(name), "float32")
        normed_D = graph.op(
            "RMSNormalization", graph.cast(x_D, "float32"), weight, axis=-1, epsilon=self.config.rms_norm_eps
        )
        return graph.cast(normed_D, graph.dtype, "float32")

    def _cache_shape(self, cache: int) -> tuple[int | str, ...]:
        window = self.plan.cache_owners[cache].window
        return "batch", self.config.num_key_value_heads, self.capacities.tokens(window), self.config.head_dim
