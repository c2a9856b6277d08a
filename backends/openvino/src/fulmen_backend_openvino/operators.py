"""Pieces of graphs in OpenVINO's operators, spelled as its fusions look for them. Weights come as `weights.Weights`.

Operators: https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/available-opsets.html

Legend: D the last dimension, B batch, T time, H heads, h head width, F inner width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13, opset15
from openvino.utils.node_factory import _get_node_factory

#: What operators take and return: an `openvino.Node` or one of its outputs.
Value = Any

_factory = _get_node_factory("opset15")


def integers(*values: int) -> Value:
    """A constant int64 vector."""
    return opset15.constant(np.array(values, np.int64))


def integer(value: int) -> Value:
    """A constant int64 scalar."""
    return opset15.constant(np.array(value, np.int64))


def real(value: float) -> Value:
    """A constant float32 scalar."""
    return opset15.constant(np.array(value, np.float32))


def size(value: Value, axis: int) -> Value:
    """The length of one axis, int64 [1]."""
    return opset15.gather(opset15.shape_of(value), integers(axis), integer(0))


def reshape(value: Value, *shape: int | Value) -> Value:
    """Reshape to sizes that are numbers (one of them may be -1) or int64 [1] values."""
    if all(isinstance(part, int) for part in shape):
        return opset15.reshape(value, integers(*shape), special_zero=False)
    parts = [integers(part) if isinstance(part, int) else part for part in shape]
    return opset15.reshape(value, opset15.concat(parts, 0), special_zero=False)


def transpose(value: Value, *order: int) -> Value:
    """Reorder the axes."""
    return opset15.transpose(value, integers(*order))


def linear(x: Value, weight_OI: Value) -> Value:
    """``x weight^T`` over the last dimension."""
    return opset15.matmul(x, weight_OI, transpose_a=False, transpose_b=True)


def swish(x: Value) -> Value:
    """``x * sigmoid(x)`` without an operand for the slope: the plugins look for experts that have none."""
    return _factory.create("Swish", [x.output(0)])


def swiglu(x: Value, gate_FD: Value, up_FD: Value) -> Value:
    """``silu(gate(x)) * up(x)``: arXiv 2002.05202."""
    return opset15.multiply(swish(linear(x, gate_FD)), linear(x, up_FD))


def rms_norm(x_D: Value, weight: Any, eps: float) -> Value:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimension; `weight` is float32 [D]."""
    mean = opset15.reduce_mean(opset15.power(x_D, real(2)), integers(-1), keep_dims=True)
    inverse = opset15.divide(real(1), opset15.sqrt(opset15.add(mean, real(eps))))
    return opset15.multiply(opset15.constant(weight), opset15.multiply(x_D, inverse))


def rotate(x_BHTh: Value, cos: Value, sin: Value, width: int) -> Value:
    """Rotate each pair of elements j and j + h/2 by the angles of its position; `cos` and `sin` are [B, 1, T, h]."""
    first, second = opset15.variadic_split(x_BHTh, integer(3), integers(width // 2, width // 2)).outputs()
    turned = opset15.concat([opset15.multiply(second, real(-1)), first], -1)
    return opset15.add(opset15.multiply(x_BHTh, cos), opset15.multiply(turned, sin))


def attend(q_BHTh: Value, k_BKSh: Value, v_BKSh: Value, mask: Value, heads: tuple[int, int, int]) -> Value:
    """Softmax attention; `mask` [B, 1, T, S] says what is seen (bool) or is added to scores; `heads` are H, K and h."""
    count, kv_count, width = heads
    k_BHSh, v_BHSh = (_repeat(x, kv_count, count // kv_count, width) for x in (k_BKSh, v_BKSh))
    return opset13.scaled_dot_product_attention(q_BHTh, k_BHSh, v_BHSh, mask, causal=False)


def _repeat(x_BKSh: Value, kv_heads: int, group: int, width: int) -> Value:
    if group == 1:
        return x_BKSh
    shape = opset15.concat([size(x_BKSh, 0), integers(kv_heads, group), size(x_BKSh, 2), integers(width)], 0)
    wide = opset15.broadcast(opset15.unsqueeze(x_BKSh, integer(2)), shape, broadcast_spec="BIDIRECTIONAL")
    return opset15.reshape(wide, integers(0, kv_heads * group, -1, width), special_zero=True)
