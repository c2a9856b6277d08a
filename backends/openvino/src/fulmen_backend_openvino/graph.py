"""The graph that is exported: prefill and decode of a layer plan, with keys and values as states of the graph.

In: a `Transformer`. Out: an `openvino.Model` with what optimum-intel's and OpenVINO GenAI's pipelines feed and read:
`input_ids`, `attention_mask`, `position_ids`, `beam_idx`, and `logits` of every token. Each choice of a `ModelConfig`
that changes the function is expressed, from the modules that make it. A full cache's state grows; a window's keeps what
the next token can see; a layer that borrows reads the owner's.

Legend: B batch, T new tokens, S tokens after the step, P tokens that a window's state held, D model width, H heads,
K kv heads, h head width, V vocabulary, N = B*T tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import openvino
import torch
from openvino import opset6, opset15
from openvino.op.util import Variable, VariableInfo

from fulmen_backend_openvino import names
from fulmen_backend_openvino.experts import mix, route
from fulmen_backend_openvino.operators import (
    Value,
    attend,
    integer,
    integers,
    linear,
    real,
    reshape,
    rms_norm,
    rotate,
    size,
    swiglu,
    transpose,
)
from fulmen_backend_openvino.weights import Weights
from fulmen_core.model.attention import Attention
from fulmen_core.model.block import Block
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.norm import RMSNorm
from fulmen_core.model.rope import attention_factor, frequencies
from fulmen_core.model.transformer import Transformer


def build_graph(network: Transformer, weights: Weights) -> openvino.Model:
    """Make the stateful graph of a model, with constants from `weights`."""
    return _Builder(network, weights).build()


class _Angles(NamedTuple):
    """Cosines and sines of each token's position, for both halves of a head: float32 [B, 1, T, h]."""

    cos: Value
    sin: Value


class _Builder:
    def __init__(self, network: Transformer, weights: Weights) -> None:
        self.network, self.config, self.weights = network, network.config, weights
        self.sinks: list[openvino.Node] = []
        self.inputs = {
            name: opset15.parameter([-1] * rank, dtype, name=name)
            for name, rank, dtype in (
                (names.INPUT_IDS, 2, np.int64),
                (names.ATTENTION_MASK, 2, np.int64),
                (names.POSITION_IDS, 2, np.int64),
                (names.BEAM_INDEX, 1, np.int32),
            )
        }
        self.batch = size(self.inputs[names.INPUT_IDS], 0)
        self.tokens = size(self.inputs[names.INPUT_IDS], 1)
        self.total = size(self.inputs[names.ATTENTION_MASK], 1)

    def build(self) -> openvino.Model:
        network, config = self.network, self.config
        embedding_VD = self.weights.matrix(network.embed.weight, sensitive=True)
        head_VD = embedding_VD if network.head is None else self.weights.matrix(network.head.weight, sensitive=True)
        x_BTD = opset15.gather(embedding_VD, self.inputs[names.INPUT_IDS], integer(0))
        if config.embedding_scale != 1:
            x_BTD = opset15.multiply(x_BTD, real(config.embedding_scale))
        angles = _angles(config, self.inputs[names.POSITION_IDS])
        past = opset15.subtract(self.total, self.tokens)
        masks = {
            window: self._full_mask(past) if window is None else self._window_mask(past, window)
            for window in dict.fromkeys(layer.window for layer in network.plan)
        }
        caches: dict[int, tuple[Value, Value]] = {}
        for layer in network.plan:
            x_BTD = self._layer(network.block(layer.index), x_BTD, angles, masks[layer.window], caches)
        x_BTD = _named(opset15.multiply(x_BTD, real(1)), names.STREAM)  # a node of its own, whatever made the stream
        hidden_BTD = _named(_norm(network.norm, x_BTD), names.HIDDEN)
        logits = opset15.result(linear(hidden_BTD, head_VD))
        model = openvino.Model([logits], self.sinks, list(self.inputs.values()), "fulmen")
        for name, node in self.inputs.items():
            node.output(0).get_tensor().set_names({name})
        model.output(0).get_tensor().set_names({names.LOGITS})
        return model

    def _full_mask(self, past: Value) -> Value:
        """Which keys each new token sees, bool [B, 1, T, S]."""
        query_T1, key_1S = self._positions(past, integers(0))
        seen_TS = opset15.less_equal(key_1S, query_T1)
        return opset15.logical_and(seen_TS, self._tokens(query_T1, key_1S, integers(0)))

    def _window_mask(self, past: Value, window: int) -> Value:
        """What is added to scores, float32 [B, 1, T, P + T]: zero where a new token sees the key, else minus infinity.

        The chain is spelled as OpenVINO's own paging looks for a window (`gpt_oss_sliding_window_pattern` in its
        sources); of another it sees no window, and says nothing.
        """
        first = opset15.subtract(past, opset15.minimum(past, integers(window - 1)))
        query_T1, key_1S = self._positions(past, first)
        tokens_B1TS = self._tokens(query_T1, key_1S, first)
        always = opset15.constant(np.array(True))
        near_TS = opset15.greater(key_1S, opset15.add(query_T1, integer(-window)))
        seen_TS = opset15.bitwise_and(opset15.less_equal(key_1S, query_T1), near_TS)
        seen_TS = opset15.bitwise_and(always, opset15.bitwise_and(seen_TS, always))
        seen_B1TS = opset15.broadcast(opset15.bitwise_and(seen_TS, tokens_B1TS), opset15.shape_of(tokens_B1TS))
        mask_B1TS = opset15.select(seen_B1TS, real(0), real(-np.inf))
        return opset15.slice(mask_B1TS, integers(0), size(mask_B1TS, 3), integers(1), integers(3))

    def _positions(self, past: Value, first: Value) -> tuple[Value, Value]:
        """Indices of the new tokens [T, 1] and of the keys from `first` on [1, S]; padding counts."""
        start, begin, end = (opset15.squeeze(value, integers(0)) for value in (past, first, self.total))
        query_T, key_S = (opset15.range(value, end, integer(1), "i64") for value in (start, begin))
        return opset15.unsqueeze(query_T, integers(1)), opset15.unsqueeze(key_S, integers(0))

    def _tokens(self, query_T1: Value, key_1S: Value, first: Value) -> Value:
        """Which keys from `first` on are no padding, bool [B, 1, T, S].

        Padding sees itself: a row of scores without any would be NaN, and so would all that sees its values.
        """
        token_BS = opset15.convert(self.inputs[names.ATTENTION_MASK], "boolean")
        token_BS = opset15.slice(token_BS, first, self.total, integers(1), integers(1))
        itself_TS = opset15.equal(key_1S, query_T1)
        return opset15.logical_or(opset15.unsqueeze(token_BS, integers(1, 2)), itself_TS)

    def _layer(
        self, block: Block, x_BTD: Value, angles: _Angles, mask: Value, caches: dict[int, tuple[Value, Value]]
    ) -> Value:
        attention, layer = block.attention, block.layer
        normed_BTD = _norm(block.attention_norm, x_BTD)
        q_BHTh = _named(
            self._place(self._linear(attention.q_proj, normed_BTD), attention, attention.q_norm, angles),
            names.query(layer.index),
        )
        if attention.kv_proj is not None:
            caches[layer.cache] = self._extend(attention, layer.cache, layer.window, normed_BTD, angles)
        heads = (attention.heads, attention.kv_heads, attention.head_dim)
        o_BHTh = attend(q_BHTh, *caches[layer.cache], mask, heads)
        o_BTA = reshape(transpose(o_BHTh, 0, 2, 1, 3), self.batch, self.tokens, attention.heads * attention.head_dim)
        o_BTA = _named(o_BTA, names.heads(layer.index))
        if attention.gate_proj is not None:
            o_BTA = opset15.multiply(o_BTA, opset15.sigmoid(self._linear(attention.gate_proj, normed_BTD)))
        x_BTD = opset15.add(x_BTD, _post(block.attention_post_norm, self._linear(attention.o_proj, o_BTA)))
        y_BTD = self._feed_forward(block, _norm(block.ffn_norm, x_BTD))
        return opset15.add(x_BTD, _post(block.ffn_post_norm, y_BTD))

    def _extend(
        self, attention: Attention, cache: int, window: int | None, normed_BTD: Value, angles: _Angles
    ) -> tuple[Value, Value]:
        """Project keys and values, and return them behind those of the state, which is updated."""
        assert attention.kv_proj is not None
        width = attention.kv_heads * attention.head_dim
        rows = self._linear(attention.kv_proj, normed_BTD)
        k_BTA, v_BTA = opset15.variadic_split(rows, integer(-1), integers(width, width)).outputs()
        k_BKTh = self._place(k_BTA, attention, attention.k_norm, angles)
        v_BKTh = transpose(_clip(self._split_heads(v_BTA, attention.head_dim), attention), 0, 2, 1, 3)
        k_BKSh, v_BKSh = (
            self._append(_named(value, names.new(cache, kind)), names.variable(cache, kind), attention, window)
            for value, kind in ((k_BKTh, "key"), (v_BKTh, "value"))
        )
        return k_BKSh, v_BKSh

    def _append(self, new_BKTh: Value, name: str, attention: Attention, window: int | None) -> Value:
        heads, width = attention.kv_heads, attention.head_dim
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = (
            openvino.PartialShape([-1, heads, -1, width]),
            openvino.Type.f32,
            name,
        )
        variable = Variable(info)
        empty = opset15.broadcast(real(0), opset15.concat([self.batch, integers(heads, 0, width)], 0))
        past_BKPh = opset15.gather(opset6.read_value(empty, variable), self.inputs[names.BEAM_INDEX], integer(0))
        whole_BKSh = opset15.concat([past_BKPh, new_BKTh], 2)
        kept = whole_BKSh
        if window is not None:
            length = size(whole_BKSh, 2)
            begin = opset15.maximum(opset15.subtract(length, integers(window - 1)), integers(0))
            kept = opset15.slice(whole_BKSh, begin, length, integers(1), integers(2))
        self.sinks.append(opset6.assign(kept, variable))
        return whole_BKSh

    def _place(self, x_BTA: Value, attention: Attention, norm: RMSNorm | None, angles: _Angles) -> Value:
        """Queries or keys of a projection's rows: into heads, normalised, clipped and rotated; [B, heads, T, h]."""
        if norm is not None and attention.norm_spans_heads:
            x_BTA = _norm(norm, x_BTA)
        x_BTHh = self._split_heads(x_BTA, attention.head_dim)
        if norm is not None and not attention.norm_spans_heads:
            x_BTHh = _norm(norm, x_BTHh)
        x_BHTh = transpose(_clip(x_BTHh, attention), 0, 2, 1, 3)
        return rotate(x_BHTh, angles.cos, angles.sin, attention.head_dim) if attention.rotates else x_BHTh

    def _split_heads(self, x_BTA: Value, width: int) -> Value:
        return opset15.reshape(x_BTA, integers(0, 0, -1, width), special_zero=True)

    def _feed_forward(self, block: Block, x_BTD: Value) -> Value:
        if isinstance(block.ffn, DenseFeedForward):
            return self._dense(block.ffn, x_BTD)
        x_ND = reshape(x_BTD, -1, self.config.hidden_size)
        y_ND = mix(x_ND, route(x_ND, block.ffn.router), block.ffn.experts, self.weights)
        if block.ffn.shared is not None:
            y_ND = opset15.add(y_ND, self._dense(block.ffn.shared, x_ND))
        return reshape(y_ND, self.batch, self.tokens, self.config.hidden_size)

    def _dense(self, source: DenseFeedForward, x: Value) -> Value:
        gate_FD, up_FD = source.gate_up.weight.chunk(2, dim=0)
        return self._linear(source.down, swiglu(x, self.weights.matrix(gate_FD), self.weights.matrix(up_FD)))

    def _linear(self, source: torch.nn.Linear, x: Value) -> Value:
        return linear(x, self.weights.matrix(source.weight))


def _angles(config: ModelConfig, position_ids: Value) -> _Angles:
    speed_h = frequencies(config.head_dim, config.rope_theta, config.rope_scaling).float().repeat(2).numpy()
    position_B1T1 = opset15.unsqueeze(opset15.convert(position_ids, "f32"), integers(1, 3))
    angle_B1Th = opset15.multiply(position_B1T1, opset15.constant(speed_h))
    factor = attention_factor(config.rope_scaling)
    cos, sin = opset15.cos(angle_B1Th), opset15.sin(angle_B1Th)
    if factor == 1:
        return _Angles(cos, sin)
    return _Angles(opset15.multiply(cos, real(factor)), opset15.multiply(sin, real(factor)))


def _norm(norm: RMSNorm, x: Value) -> Value:
    return rms_norm(x, norm.weight.detach().float().numpy(), norm.eps)


def _post(norm: RMSNorm | None, x: Value) -> Value:
    return x if norm is None else _norm(norm, x)


def _clip(x: Value, attention: Attention) -> Value:
    return x if attention.clip is None else opset15.clamp(x, -attention.clip, attention.clip)


def _named(node: Value, name: str) -> Value:
    node.set_friendly_name(name)
    return node
