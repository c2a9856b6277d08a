"""Weights as constants of a graph: in 32 or 16 bits, or quantised behind operators that the plugins fuse into products.

Eight bits: a scale for each output, symmetric. Four bits: a scale and a zero for each group of inputs, unsigned; those
whose inputs do not divide into groups, and those of the embedding and the head, keep eight. Constants that are equal
are stored once.

Legend: O outputs, I inputs, G inputs of a group; weights of experts have a leading E.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset15
from torch import Tensor

from fulmen_backend_openvino.operators import Value, integers
from fulmen_core.backend import Dtype

#: Inputs that share a scale in four bits: the widest of these that divides.
GROUPS = (128, 64, 32)


class Weights:
    """Turns tensors into constants.

    Args:
        dtype: of what is not quantised: "float32", "bfloat16" or "float16".
        quantize: "int8", "int4" or None.
    """

    def __init__(self, dtype: Dtype, quantize: str | None) -> None:
        self.dtype, self.quantize = dtype, quantize

    def matrix(self, weight: Tensor, *, sensitive: bool = False) -> Value:
        """The operand of a product or look-up [..., O, I], float32 to the graph; `sensitive` ones keep eight bits."""
        array = np.ascontiguousarray(weight.detach().float().numpy())  # a constant reads memory as it lies
        if self.quantize is None:
            return self._float(array)
        group = next((size for size in GROUPS if array.shape[-1] % size == 0), None)
        if self.quantize == "int8" or sensitive or group is None:
            return _int8(array)
        return _int4(array, group)

    def _float(self, array: NDArray[np.float32]) -> Value:
        if self.dtype == "float32":
            return opset15.constant(array)
        if self.dtype == "float16":
            return opset15.convert(opset15.constant(array.astype(np.float16)), "f32")
        tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(array.shape))
        tensor.data.view(np.uint16)[...] = bfloat16_bits(array)
        return opset15.convert(opset15.constant(tensor), "f32")


def bfloat16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to nearest, ties to even. Not for NaN."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _int8(array: NDArray[np.float32]) -> Value:
    scale = np.abs(array).max(-1, keepdims=True) / 127
    scale[scale == 0] = 1
    quantised = np.round(array / scale).astype(np.int8)
    return opset15.multiply(opset15.convert(opset15.constant(quantised), "f32"), opset15.constant(scale))


def _int4(array: NDArray[np.float32], group: int) -> Value:
    grouped = array.reshape(*array.shape[:-1], -1, group)
    low, high = np.minimum(grouped.min(-1, keepdims=True), 0), np.maximum(grouped.max(-1, keepdims=True), 0)
    scale = ((high - low) / 15).astype(np.float32)
    scale[scale == 0] = 1
    zero = np.round(-low / scale)
    quantised = np.clip(np.round(grouped / scale) + zero, 0, 15).astype(np.uint8)
    centred = opset15.subtract(
        opset15.convert(_packed(quantised), "f32"), opset15.convert(_packed(zero.astype(np.uint8)), "f32")
    )
    whole = opset15.multiply(centred, opset15.constant(scale))
    return opset15.reshape(whole, integers(*array.shape), special_zero=False)


def _packed(values: NDArray[Any]) -> Value:
    """Numbers below 16 as a constant of four bits each: two a byte, the first in the lower half."""
    flat = values.reshape(-1)
    if len(flat) % 2:
        flat = np.append(flat, np.uint8(0))
    tensor = openvino.Tensor(openvino.Type.u4, openvino.Shape(values.shape))
    tensor.data.view(np.uint8).reshape(-1)[...] = flat[0::2] | (flat[1::2] << 4)
    return opset15.constant(tensor)
