"""The graph that is exported: prefill and decode of a layer plan in the operators that ONNX Runtime has kernels for.

In: a config, weights and a `WeightFormat`. Out: an ONNX model, with its weights in a file beside it. Each fused
operator does what several nodes would: attention with its cache (`attention`), the chosen experts (`experts`), an
addition to the residual stream with the norm that follows.

Legend: B batch, T time, D model width, K kv heads, C cache capacity, h head width, L tokens whose results are wanted,
M = B*L, N = B*T, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import torch

from fulmen_backend_onnxruntime.artefact import HIDDEN, WANTED
from fulmen_backend_onnxruntime.attention import Attention, Step, rotates_inside
from fulmen_backend_onnxruntime.experts import Mixture, dense_feed_forward
from fulmen_backend_onnxruntime.external_data import ExternalData
from fulmen_backend_onnxruntime.graph_builder import CONTRIB, GraphBuilder
from fulmen_backend_onnxruntime.products import Array, Products, Vocabulary, WeightFormat
from fulmen_backend_onnxruntime.smoothing import SmoothedWeights, Smoothing, Weights
from fulmen_core.errors import CapabilityError
from fulmen_core.export.manifest import cache_names
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec
from fulmen_core.model.rope import rotary


def check_expressible(config: ModelConfig) -> None:
    """Refuse a model that the operators have no kernels for.

    Raises:
        CapabilityError: it is one.
    """
    if config.head_dim % 8:
        raise CapabilityError(
            f"ONNX Runtime's attention takes heads of a multiple of 8, not head_dim = {config.head_dim}",
            remedy="serve the checkpoint itself with the cpu backend",
        )


class DecoderGraph:
    """One step of every sequence of a batch, over caches that are inputs and outputs.

    Inputs: ``input_ids`` int64 [B, T], negative where a row is padded, on its right. ``attention_mask`` int64
    [B, any], whose rows sum to the lengths of the sequences, tokens of this step included. ``past_key_values.N.key``
    and ``.value`` [B, K, C, h] of each cache of the plan. ``logits_to_keep`` int64 [1], the L last tokens of each
    sequence whose results are wanted: all, if it is 0 or not given.

    Outputs: ``logits`` float32 [B, L, V], ``hidden_states`` float32 [B, L, D] after the final norm, and
    ``present.N.key`` and ``.value``.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, smoothing: Smoothing, form: WeightFormat, data: ExternalData
    ) -> None:
        self._config, self._plan, self._form = config, LayerPlan.of(config), form
        self._weights, self._smoothing = SmoothedWeights(weights, smoothing), smoothing
        self._graph = graph = GraphBuilder(data)
        self._products = Products(graph, form)
        padded = all(layer.owns_kv for layer in self._plan)
        self._attention = Attention(self._products, config, padded)

    def build(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Add all nodes and return the model."""
        config, graph = self._config, self._graph
        ids_BT = graph.input("input_ids", "int64", ["batch", "length"])
        mask_BS = graph.input("attention_mask", "int64", ["batch", "total"])
        past = cache_names("past_key_values", len(self._plan.cache_owners))
        shapes = [self._cache_shape(owner) for owner in self._plan.cache_owners]
        caches = [
            (graph.input(key, self._form.dtype, shape), graph.input(value, self._form.dtype, shape))
            for (key, value), shape in zip(past, shapes, strict=True)
        ]
        wanted = graph.optional_input(WANTED, np.array([0], np.int64), [1])
        head_VD = None if config.tie_word_embeddings else self._weights["head.weight"]
        vocabulary = Vocabulary(self._products, self._weights["embed.weight"], head_VD, config.embedding_scale)

        step = self._step(ids_BT, mask_BS)
        tokens_N1 = graph.node("Reshape", ids_BT, graph.constant([-1, 1]))
        mixture = Mixture(self._products, config, graph.node("Cast", tokens_N1, to=onnx.TensorProto.FLOAT))
        x_BTD, added_BTD = vocabulary.embed(ids_BT), None
        for layer in self._plan:
            with graph.scope(f"layers.{layer.index}"):
                x_BTD, added_BTD = self._layer(layer, x_BTD, added_BTD, step, caches, mixture)
        assert added_BTD is not None
        rows_M, wanted = self._wanted_rows(ids_BT, step, wanted)
        x_MD, added_MD = (self._rows(value, rows_M) for value in (x_BTD, added_BTD))
        _, hidden_MD = self._sum_and_norm(x_MD, added_MD, "norm", self._weights["norm.weight"])
        batch = graph.node("Shape", ids_BT, start=0, end=1)
        results = {
            "logits": (vocabulary.logits(hidden_MD), config.vocab_size),
            HIDDEN: (self._unsmoothed(hidden_MD), config.hidden_size),
        }
        for name, (value_MA, width) in results.items():
            form = graph.node("Concat", batch, wanted, graph.constant([width]), axis=0)
            graph.output(graph.node("Reshape", value_MA, form), name, "float32", ["batch", "wanted", width])
        present = cache_names("present", len(caches))
        for names, values, shape in zip(present, caches, shapes, strict=True):
            for name, value in zip(names, values, strict=True):
                graph.output(value, name, self._form.dtype, shape)
        return graph.model(metadata)

    def _unsmoothed(self, hidden_MD: str) -> str:
        """What the final norm of the model itself makes."""
        divisors_D = self._smoothing.outputs.get("norm.weight")
        if divisors_D is None:
            return hidden_MD
        return self._graph.node("Mul", hidden_MD, self._graph.weight("norm.smoothing", divisors_D))

    def _cache_shape(self, owner: LayerSpec) -> list[int | str]:
        capacity = "capacity" if owner.window is None else "window_capacity"
        return ["batch", self._config.num_key_value_heads, capacity, self._config.head_dim]

    def _layer(
        self,
        layer: LayerSpec,
        x_BTD: str,
        added_BTD: str | None,
        step: Step,
        caches: list[tuple[str, str]],
        mixture: Mixture,
    ) -> tuple[str, str]:
        """The residual stream, and what is yet to be added to it: the next norm's node does."""
        weights = partial(self._weights.of_layer, layer.index)
        x_BTD, normed_BTD = self._sum_and_norm(x_BTD, added_BTD, "attention_norm", weights("attention_norm.weight"))
        added_BTD = self._attention.add(layer, normed_BTD, weights, step, caches)
        if self._config.post_norms:
            added_BTD = self._norm(added_BTD, "attention_post_norm", weights("attention_post_norm.weight"))
        x_BTD, normed_BTD = self._sum_and_norm(x_BTD, added_BTD, "ffn_norm", weights("ffn_norm.weight"))
        shared_BTD = None
        if layer.ffn == "dense":
            added_BTD = dense_feed_forward(self._products, normed_BTD, weights, "ffn")
        else:
            added_BTD, shared_BTD = mixture.add(normed_BTD, weights), mixture.add_shared(normed_BTD, weights)
        if self._config.post_norms:
            _, added_BTD = self._sum_and_norm(added_BTD, shared_BTD, "ffn_post_norm", weights("ffn_post_norm.weight"))
        elif shared_BTD is not None:
            added_BTD = self._graph.node("Add", added_BTD, shared_BTD)
        return x_BTD, added_BTD

    def _sum_and_norm(self, x: str, added: str | None, name: str, weight_D: Array) -> tuple[str, str]:
        """``x + added``, and the norm of it."""
        if added is None:
            return x, self._norm(x, name, weight_D)
        normed, _, _, total = self._graph.nodes(
            "SkipSimplifiedLayerNormalization",
            4,
            x,
            added,
            self._graph.weight(name, weight_D),
            domain=CONTRIB,
            unused=(1, 2),
            epsilon=self._config.rms_norm_eps,
        )
        return total, normed

    def _norm(self, x: str, name: str, weight_D: Array) -> str:
        weight = self._graph.weight(name, weight_D)
        return self._graph.node("RMSNormalization", x, weight, epsilon=self._config.rms_norm_eps)

    def _step(self, ids_BT: str, mask_BS: str) -> Step:
        graph, config = self._graph, self._config
        columns = graph.constant([1])
        lengths_B = graph.node("ReduceSum", mask_BS, columns, keepdims=0)
        given_BT = graph.node(
            "Cast", graph.node("GreaterOrEqual", ids_BT, graph.constant(0)), to=onnx.TensorProto.INT64
        )
        new_B = graph.node("Min", lengths_B, graph.node("ReduceSum", given_BT, columns, keepdims=0))
        last_B = graph.node("Sub", lengths_B, graph.constant(1))
        longest = graph.node("ReduceMax", lengths_B, keepdims=0)
        cos = sin = positions_BT = None
        if config.rope_layers == "all" or any(layer.window is not None for layer in self._plan):
            cos, sin = self._angles()
        if cos is not None and not rotates_inside(config):
            length = graph.node("Squeeze", graph.node("Shape", ids_BT, start=1, end=2))
            offsets_T = graph.node("Range", graph.constant(0), length, graph.constant(1))
            starts_B1 = graph.node("Unsqueeze", graph.node("Sub", lengths_B, new_B), columns)
            positions_BT = graph.node("Add", starts_B1, offsets_T)
            # padding may lie beyond the last position
            positions_BT = graph.node("Min", positions_BT, graph.constant(config.max_position_embeddings - 1))
        last_B, longest, new_B = (graph.node("Cast", x, to=onnx.TensorProto.INT32) for x in (last_B, longest, new_B))
        return Step(last_B, longest, new_B, cos, sin, positions_BT)

    def _angles(self) -> tuple[str, str]:
        config = self._config
        tables = rotary(
            torch.arange(config.max_position_embeddings),
            config.head_dim,
            config.rope_theta,
            scaling=config.rope_scaling,
        )
        dtype = self._form.dtype if rotates_inside(config) else "float32"
        names = ("rotary.cos", "rotary.sin")
        cos, sin = (
            self._graph.weight(name, table.flatten(1).numpy().astype(dtype))
            for name, table in zip(names, tables, strict=True)
        )
        return cos, sin

    def _wanted_rows(self, ids_BT: str, step: Step, wanted: str) -> tuple[str, str]:
        """Of all N rows of the step, the last L of each sequence [M]; the first again where a sequence has fewer.

        Of none wanted, as for callers who do not know of it, all are made, padding too. Also returns L, int64 [1].
        """
        graph = self._graph
        zero, one, column = graph.constant(0), graph.constant(1), graph.constant([1])
        batch, length = graph.nodes("Split", 2, graph.node("Shape", ids_BT), num_outputs=2)
        all_wanted = graph.node("Equal", wanted, graph.constant([0]))
        wanted = graph.node("Where", all_wanted, length, wanted)
        new_B = graph.node("Where", all_wanted, length, graph.node("Cast", step.new_B, to=onnx.TensorProto.INT64))
        begins_B = graph.node("Mul", graph.node("Range", zero, graph.node("Squeeze", batch), one), length)
        ends_B1 = graph.node("Unsqueeze", graph.node("Add", begins_B, new_B), column)
        offsets_L = graph.node("Range", graph.node("Neg", graph.node("Squeeze", wanted)), zero, one)
        rows_BL = graph.node("Max", graph.node("Add", ends_B1, offsets_L), graph.node("Unsqueeze", begins_B, column))
        return graph.node("Reshape", rows_BL, graph.constant([-1])), wanted

    def _rows(self, x_BTD: str, rows_M: str) -> str:
        x_ND = self._graph.node("Reshape", x_BTD, self._graph.constant([-1, self._config.hidden_size]))
        return self._graph.node("Gather", x_ND, rows_M)
