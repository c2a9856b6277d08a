"""Weights as 8 or 4 bits, with a scale for each block of adjoining inputs of one output: MatMulNBits's and QMoE's form.

A block of values ``w`` becomes ``q = round(w / s) + z`` with ``z`` half the range (128 or 8) and ``s`` such that the
largest value keeps its size.

Legend: N outputs, K inputs (any dimensions may come before), b block, C = K/b blocks of an output.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bits = Literal[4, 8]

#: `MatMulNBits.accuracy_level`: inputs may be rounded to 8 bits. Without, its products of 8 bits are 300 times slower.
ROUNDED_INPUT = 4


class Quantized(NamedTuple):
    """Quantised weights.

    Attributes:
        data: uint8 [..., N, C, b * bits / 8]; of 4 bits, the first of two values is in the low half of a byte.
        scales: float32 [..., N, C].
    """

    data: NDArray[np.uint8]
    scales: NDArray[np.float32]


def quantize(weight_NK: NDArray[np.float32], bits: Bits, block: int) -> Quantized:
    """Quantise weights [..., N, K], the last block filled up with zeros if `block` does not divide K."""
    filler = -weight_NK.shape[-1] % block
    if filler:
        weight_NK = np.pad(weight_NK, [(0, 0)] * (weight_NK.ndim - 1) + [(0, filler)])
    blocks = weight_NK.reshape(*weight_NK.shape[:-1], -1, block)
    half = 1 << (bits - 1)
    if bits == 8:
        largest = np.abs(blocks).max(-1)
        scales = largest / (half - 1)
    else:
        # Of 16 levels one more lies below zero than above: the largest value goes there, by the scale's sign.
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
        scales = extreme / -half
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.clip(np.rint(blocks * inverse[..., None]) + half, 0, 2 * half - 1).astype(np.uint8)
    if bits == 4:
        levels = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return Quantized(levels, scales.astype(np.float32))


def dequantize(quantized: Quantized, bits: Bits, inputs: int) -> NDArray[np.float32]:
    """The weights [..., N, `inputs`] that the operators compute with."""
    levels = quantized.data
    if bits == 4:
        levels = np.stack((levels & 15, levels >> 4), -1).reshape(*levels.shape[:-1], -1)
    blocks = (levels.astype(np.float32) - (1 << (bits - 1))) * quantized.scales[..., None]
    return blocks.reshape(*blocks.shape[:-2], -1)[..., :inputs]


def block_size(inputs: tuple[int, ...], preferred: int) -> int | None:
    """The largest block up to `preferred`, halved at will but at least 16, that divides all `inputs`; None if none."""
    while preferred >= 16:
        if not any(width % preferred for width in inputs):
            return preferred
        preferred //= 2
    return None
