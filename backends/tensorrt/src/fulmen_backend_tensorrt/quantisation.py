"""Weights in fewer bits: what they are rounded to, and how 4 bits lie in bytes.

Symmetric throughout: a weight is its value times a scale. 8 bits, whole or floating, have one scale for each output of
a product; 4 bits one for each block of adjoining inputs of an output.

Legend: A outputs, D inputs of a product, b block.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fulmen_core.backend import Dtype, Quantization

TORCH: Mapping[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

#: The largest float8_e4m3fn.
LARGEST_FP8 = 448.0

_LARGEST = 127
_LARGEST_4 = 7
_BLOCK = 32
_HEADS = ("head.weight", "embed.weight")  # the latter where they are tied
_SMALLEST_BLOCK = 8  # below, scales take more than the values


class Rounded(NamedTuple):
    """`values` of the weight's shape, int8 or float8_e4m3fn; `scale`, which they are multiplied by.

    The scale is 1 wide along the inputs; in blocks, as wide as there are blocks.
    """

    values: Tensor
    scale: Tensor


def form_of(name: str, inputs: int, quantize: Quantization | None, *, experts: bool = False) -> Quantization | None:
    """In what form a matrix of the checkpoint is stored.

    4 bits are for what opens a feed-forward network, half of its weights or more: attention, the head and `down` are
    rounded to 8, as 4 there cost most. Where all else is in floating numbers of 8 bits, experts are in whole ones, as
    TensorRT gathers no 8-bit floats, and so is the head, as what is rounded there is not evened out by anything behind.
    """
    if quantize == "int4":
        return "int4" if "gate_up" in name and block_of(inputs) >= _SMALLEST_BLOCK else "int8"
    if quantize == "fp8" and (experts or name in _HEADS):
        return "int8"
    return quantize


def block_of(inputs: int) -> int:
    """How many adjoining inputs share a scale: the largest power of two up to 32 that divides them."""
    return gcd(inputs, _BLOCK)


def quantise(weight: Tensor, inputs: int, dtype: Dtype, form: Quantization = "int8") -> Rounded:
    """Round a weight.

    Args:
        weight: float32.
        inputs: the dimension that the product sums over; the last one for 4 bits.
        dtype: of the scale, which is rounded first, so that the values are the best for it.
        form: 4 bits are int8 from -7 to 7, in blocks of `block_of`.
    """
    if form == "int4":
        blocks = torch.unflatten(weight, -1, (-1, block_of(weight.shape[-1])))
        scale, values = _divide(blocks, -1, dtype, _LARGEST_4)
        return Rounded(_whole(values, _LARGEST_4).flatten(-2), scale.squeeze(-1))
    if form == "fp8":
        scale, values = _divide(weight, inputs, dtype, LARGEST_FP8)
        # dividing may end one rounding above the largest, which would become NaN
        return Rounded(values.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn), scale)
    scale, values = _divide(weight, inputs, dtype, _LARGEST)
    return Rounded(_whole(values, _LARGEST), scale)


def restore(rounded: Rounded) -> Tensor:
    """The weight that rounded values stand for, float32."""
    values, scale = rounded.values.to(torch.float32), rounded.scale.to(torch.float32)
    if scale.shape[-1] > 1 and scale.shape[-1] < values.shape[-1]:
        scale = scale.repeat_interleave(values.shape[-1] // scale.shape[-1], -1)
    return values * scale


def pack(values: Tensor, order: Literal["adjoining", "halves"]) -> Tensor:
    """Two values from -8 to 7 a byte, the first in its lower half: [..., D] int8 to [..., D/2] uint8.

    Args:
        values: of an even last dimension.
        order: a byte holds two that adjoin, as ONNX and TensorRT have it; or one of each half of the last dimension,
            for graphs that take bytes apart: the halves then follow each other.
    """
    width = values.shape[-1] // 2
    pairs = torch.unflatten(values, -1, (width, 2) if order == "adjoining" else (2, width))
    low, high = pairs.unbind(-1 if order == "adjoining" else -2)
    packed: Tensor = (low & 15).to(torch.uint8) | (high & 15).to(torch.uint8) << 4
    return packed


def _divide(weight: Tensor, dim: int, dtype: Dtype, largest: float) -> tuple[Tensor, Tensor]:
    scale = (weight.abs().amax(dim, keepdim=True) / largest).to(TORCH[dtype])
    scale = torch.where(scale == 0, 1, scale)  # TensorRT takes no scale of zero
    return scale, weight / scale.to(torch.float32)


def _whole(values: Tensor, largest: int) -> Tensor:
    return values.round().clamp(-largest, largest).to(torch.int8)
