"""Experts whose forward and input-gradient products are those of 8-bit floats; weight gradients stay in 16 bits.

A weight's gradient sums over all tokens of an expert, outliers among them, and is what the optimizer sees: it is not
rounded. Both factors of the other products are rounded row by row just before them; master weights stay float32.

Legend: N tokens, D model width, E experts, F expert width, G = 2F, R rows sorted by expert, I and O inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cuda.fp8 import ALIGNMENT, grouped_product8, to_rows8
from fulmen_core.model.expert_rows import combine, dispatch, sort_rows, weighted_sum
from fulmen_core.model.experts import swiglu
from fulmen_core.model.precision import product_dtype
from fulmen_core.model.router import Routing


def grouped_in_fp8(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """`fulmen_core.model.experts.grouped` up to the rounding to 8 bits. Differentiable once."""
    dtype = product_dtype(x_ND)
    rows = sort_rows(routing.selected_NK, len(down_EFD), ALIGNMENT)
    x_RD = dispatch(x_ND.to(dtype), rows, routing.selected_NK.shape[1])
    hidden_RF = swiglu(_product(x_RD, gate_up_EGD.to(dtype), rows.ends_E))
    y_RD = _product(hidden_RF, down_EFD.to(dtype).transpose(1, 2), rows.ends_E)
    return weighted_sum(combine(y_RD, rows), routing.weights_NK)


class _Product(torch.autograd.Function):
    """``x @ weight[e].T`` for the rows of each expert."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_RI, weight_EOI, ends_E)
        return grouped_product8(to_rows8(x_RI), to_rows8(weight_EOI.contiguous()), ends_E, x_RI.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RO: Tensor) -> tuple[Tensor, Tensor, None]:
        x_RI, weight_EOI, ends_E = ctx.saved_tensors
        grad_RO = grad_RO.contiguous()
        weight_EIO = to_rows8(weight_EOI.transpose(1, 2).contiguous())
        grad_RI = grouped_product8(to_rows8(grad_RO), weight_EIO, ends_E, x_RI.dtype)
        grad_EOI = F.grouped_mm(grad_RO.t(), x_RI, offs=ends_E)
        return grad_RI, grad_EOI, None


_product: Callable[[Tensor, Tensor, Tensor], Tensor] = _Product.apply
