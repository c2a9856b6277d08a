"""Tensor types of ggml and what their blocks stand for; every expansion is exact to the bit in float32.

A quantised row is cut into blocks of `size` elements, each stored in `nbytes` bytes: scales in float16, then small
integers. Formulas: ggml-quants.c (https://github.com/ggml-org/llama.cpp).

Legend: N blocks, b bytes of a block, e elements of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Blocks expanded at once: bounds the memory beside the result.
_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class BlockType:
    """A tensor type.

    Attributes:
        name: ggml's.
        size: elements of a block.
        nbytes: bytes of a block.
        expand: blocks [N, b] to float32 elements [N, e]; None for a float type, which is read as it is.
    """

    name: str
    size: int
    nbytes: int
    expand: Callable[[Bytes], Floats] | None = None


def dequantise(kind: BlockType, stored: Bytes) -> Floats:
    """Expand the whole blocks in `stored` to float32, flat.

    Raises:
        ValueError: `kind` is a float type.
    """
    if kind.expand is None:
        raise ValueError(f"{kind.name} is no quantised type")
    blocks_Nb = stored.reshape(-1, kind.nbytes)
    result_Ne = np.empty((len(blocks_Nb), kind.size), np.float32)
    step = max(1, _CHUNK_ELEMENTS // kind.size)
    with np.errstate(invalid="ignore", over="ignore"):  # scales may be infinite or NaN: that is for the caller to judge
        for first in range(0, len(blocks_Nb), step):
            result_Ne[first : first + step] = kind.expand(blocks_Nb[first : first + step])
    return result_Ne.reshape(-1)


def _half(blocks_Nb: Bytes, first: int) -> Floats:
    """The float16 at byte `first` of each block, as float32 [N, 1]."""
    return np.ascontiguousarray(blocks_Nb[:, first : first + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed_Nb: Bytes, width: int) -> Bytes:
    """Low, then high halves of every `width` bytes: [N, b] to [N, 2b]."""
    grouped = packed_Nb.reshape(len(packed_Nb), -1, 1, width)
    halves = np.concatenate((grouped, grouped >> np.uint8(4)), axis=2) & np.uint8(0x0F)
    return halves.reshape(len(packed_Nb), -1)


def _fifth_bits(packed_N4: Bytes) -> Bytes:
    """One bit for each of 32 elements, moved to the place of the value 16."""
    return np.unpackbits(packed_N4, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks_Nb: Bytes) -> Floats:
    return _half(blocks_Nb, 0) * (_nibbles(blocks_Nb[:, 2:], 16).astype(np.float32) - 8)


def _q4_1(blocks_Nb: Bytes) -> Floats:
    return _half(blocks_Nb, 0) * _nibbles(blocks_Nb[:, 4:], 16).astype(np.float32) + _half(blocks_Nb, 2)


def _q5_0(blocks_Nb: Bytes) -> Floats:
    values_Ne = _nibbles(blocks_Nb[:, 6:], 16) | _fifth_bits(blocks_Nb[:, 2:6])
    return _half(blocks_Nb, 0) * (values_Ne.astype(np.float32) - 16)


def _q5_1(blocks_Nb: Bytes) -> Floats:
    values_Ne = _nibbles(blocks_Nb[:, 8:], 16) | _fifth_bits(blocks_Nb[:, 4:8])
    return _half(blocks_Nb, 0) * values_Ne.astype(np.float32) + _half(blocks_Nb, 2)


def _q8_0(blocks_Nb: Bytes) -> Floats:
    return _half(blocks_Nb, 0) * blocks_Nb[:, 2:].view(np.int8).astype(np.float32)


def _k_scales(packed_N12: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and eight 6-bit minima from 12 bytes (ggml's `get_scale_min_k4`), float32 [N, 8] each."""
    low, mid, high = packed_N12[:, 0:4], packed_N12[:, 4:8], packed_N12[:, 8:12]
    scales = np.concatenate((low & 0x3F, (high & 0x0F) | ((low >> 2) & 0x30)), axis=1)
    minima = np.concatenate((mid & 0x3F, (high >> 4) | ((mid >> 2) & 0x30)), axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_affine(blocks_Nb: Bytes, values_Ne: Bytes) -> Floats:
    """Q4_K and Q5_K: each of eight groups of 32 has its own scale and minimum."""
    scales_N8, minima_N8 = _k_scales(blocks_Nb[:, 4:16])
    scales_N81 = (_half(blocks_Nb, 0) * scales_N8)[:, :, None]
    minima_N81 = (_half(blocks_Nb, 2) * minima_N8)[:, :, None]
    values = values_Ne.reshape(-1, 8, 32).astype(np.float32)
    return (scales_N81 * values - minima_N81).reshape(len(blocks_Nb), 256)


def _q4_k(blocks_Nb: Bytes) -> Floats:
    return _k_affine(blocks_Nb, _nibbles(blocks_Nb[:, 16:], 32))


def _q5_k(blocks_Nb: Bytes) -> Floats:
    # Bit g of byte i is the fifth bit of element i of group g.
    bits = np.unpackbits(blocks_Nb[:, 16:48], axis=1, bitorder="little").reshape(-1, 32, 8)
    fifth_Ne = bits.transpose(0, 2, 1).reshape(-1, 256) << np.uint8(4)
    return _k_affine(blocks_Nb, _nibbles(blocks_Nb[:, 48:], 32) | fifth_Ne)


def _q6_k(blocks_Nb: Bytes) -> Floats:
    low_Ne = _nibbles(blocks_Nb[:, :128], 64)
    packed = blocks_Nb[:, 128:192].reshape(-1, 2, 1, 32)
    high_Ne = ((packed >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3).reshape(-1, 256)
    values = (low_Ne | (high_Ne << 4)).reshape(-1, 16, 16).astype(np.float32) - 32
    scales = _half(blocks_Nb, 208) * blocks_Nb[:, 192:208].view(np.int8).astype(np.float32)
    return (scales[:, :, None] * values).reshape(len(blocks_Nb), 256)


#: ggml's number of a tensor type -> the type.
BLOCKS: dict[int, BlockType] = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    30: BlockType("BF16", 1, 2),
    2: BlockType("Q4_0", 32, 18, _q4_0),
    3: BlockType("Q4_1", 32, 20, _q4_1),
    6: BlockType("Q5_0", 32, 22, _q5_0),
    7: BlockType("Q5_1", 32, 24, _q5_1),
    8: BlockType("Q8_0", 32, 34, _q8_0),
    12: BlockType("Q4_K", 256, 144, _q4_k),
    13: BlockType("Q5_K", 256, 176, _q5_k),
    14: BlockType("Q6_K", 256, 210, _q6_k),
}
