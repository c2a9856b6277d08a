"""Grouped products of 8-bit floats (float8_e4m3fn) with a scale for each row of either factor.

A value is ``float(x8) * scale``; the scale is what maps the row's largest magnitude to 448, the largest float8_e4m3fn
(arXiv 2209.05433). Without a GPU the factors are widened and multiplied: the same values, in float32 sums.

Legend: E experts, R rows sorted by expert, I and O inputs and outputs of a product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
#: What sizes must be multiples of: the kernels read 16 bytes at a time (GroupedBlas.cpp); so are each expert's rows.
ALIGNMENT = 16
_LEAST = 1e-12  # of a row's largest magnitude, so that rows of zeros stay zero


class Rows8(NamedTuple):
    """Rows of 8-bit floats [..., I] and the float32 scale of each [...]."""

    x8: Tensor
    scale: Tensor


def to_rows8(x_I: Tensor) -> Rows8:
    """Round [..., I] to 8 bits, row by row."""
    wide_I = x_I.to(torch.promote_types(x_I.dtype, torch.float32))
    scale = wide_I.abs().amax(-1).clamp(min=_LEAST) / LARGEST
    scaled_I = wide_I / scale.unsqueeze(-1)
    # Dividing may end one rounding above the largest, which would become NaN.
    return Rows8(scaled_I.clamp(-LARGEST, LARGEST).to(DTYPE), scale.to(torch.float32))


def from_rows8(rows: Rows8, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values that 8-bit rows stand for, exact in float32."""
    return (rows.x8.to(torch.float32) * rows.scale.unsqueeze(-1)).to(dtype)


def grouped_product8(x_RI: Rows8, weight_EOI: Rows8, ends_E: Tensor, dtype: torch.dtype) -> Tensor:
    """``x @ weight[e].T`` for the rows of each expert: [R, O] in `dtype`.

    Args:
        x_RI: every expert's number of rows a multiple of `ALIGNMENT`.
        weight_EOI: contiguous, so that its transpose lies as the kernel wants it.
        ends_E: int32, where each expert's rows end; the last end is R.
        dtype: of the result. Kernels round to bfloat16 first.
    """
    if x_RI.x8.device.type == "cpu":
        return grouped_product(from_rows8(x_RI), from_rows8(weight_EOI).transpose(1, 2), ends_E).to(dtype)
    # Not F.scaled_grouped_mm: the operator behind that has no meta kernel in torch 2.13, so nothing around it compiles.
    product_RO: Tensor = torch._scaled_grouped_mm(
        x_RI.x8,
        weight_EOI.x8.transpose(1, 2),
        x_RI.scale,
        weight_EOI.scale,
        offs=ends_E,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return product_RO.to(dtype)


def grouped_product(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """``x @ weight[e]`` for the rows of each expert, in the dtype of both: [R, O]."""
    return F.grouped_mm(x_RI, weight_EIO, offs=ends_E)


def why_unaligned(*sizes: int) -> str:
    """Why products of these sizes cannot be had in 8 bits, or an empty text."""
    wrong = [size for size in sizes if size % ALIGNMENT]
    return f"{wrong[0]} is no multiple of {ALIGNMENT}" if wrong else ""
