"""Normalisation, and normalisation with rotation of heads, as differentiable functions over the compiled kernels.

Legend: N tokens, D model width, B batch, T time, H heads, h head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cpu.training_kernels import LANES, load_kernels
from fulmen_core.model.attention import norm_and_rotate
from fulmen_core.model.norm import RMSNorm, rms_norm
from fulmen_core.model.precision import product_dtype

_LOW = (torch.bfloat16, torch.float32)


def native_rms_norm(x_D: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`fulmen_core.model.norm.rms_norm` of a float32 stream, in the dtype of the products that read it."""
    dtype = product_dtype(x_D)
    if (
        x_D.dtype is not torch.float32
        or weight_D.dtype is not torch.float32
        or dtype not in _LOW
        or len(weight_D) % LANES
    ):
        return rms_norm(x_D, weight_D, eps)
    return _apply_norm(x_D, weight_D, eps, dtype)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x_D = x_D.contiguous()
        width = len(weight_D)
        rows = x_D.numel() // width
        y_D = torch.empty_like(x_D, dtype=dtype)
        rstd_N = x_D.new_empty(rows)
        load_kernels().call("norm_forward", int(dtype is torch.bfloat16), x_D, weight_D, y_D, rstd_N, rows, width, eps)
        ctx.save_for_backward(x_D, weight_D, rstd_N)
        return y_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_D: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_D, weight_D, rstd_N = ctx.saved_tensors
        grad_D = grad_D.contiguous()
        grad_x_D, grad_weight_D = torch.empty_like(x_D), torch.empty_like(weight_D)
        low = int(grad_D.dtype is torch.bfloat16)
        load_kernels().call(
            "norm_backward", low, grad_D, x_D, weight_D, rstd_N, grad_x_D, grad_weight_D, len(rstd_N), len(weight_D)
        )
        return grad_x_D, grad_weight_D, None, None


def native_norm_and_rotate(x_BTHh: Tensor, norm: RMSNorm | None, cos: Tensor, sin: Tensor) -> Tensor:
    """`fulmen_core.model.attention.norm_and_rotate` of heads as a projection left them."""
    weight_h = None if norm is None else norm.weight
    width = x_BTHh.shape[-1]
    plain = (
        x_BTHh.dtype not in _LOW
        or cos.dtype is not torch.float32
        or (weight_h is not None and weight_h.dtype is not torch.float32)
        or width % (2 * LANES)
        or x_BTHh.stride()[2:] != (width, 1)
        or x_BTHh.stride(0) != x_BTHh.shape[1] * x_BTHh.stride(1)
    )
    if plain:
        return norm_and_rotate(x_BTHh, norm, cos, sin)
    return _apply_heads(x_BTHh, weight_h, 0.0 if norm is None else norm.eps, cos.contiguous(), sin.contiguous())


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTHh: Tensor, weight_h: Tensor | None, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, heads, width = x_BTHh.shape
        y_BTHh = x_BTHh.new_empty(x_BTHh.shape)
        rstd_NH = x_BTHh.new_empty(0 if weight_h is None else batch * tokens * heads, dtype=torch.float32)
        angle_rows = cos.numel() * 2 // width
        load_kernels().call(
            "heads_forward",
            int(x_BTHh.dtype is torch.bfloat16),
            *(x_BTHh, x_BTHh.stride(1), weight_h, cos, sin, angle_rows, y_BTHh, rstd_NH),
            *(batch * tokens, heads, width, eps),
        )
        ctx.save_for_backward(x_BTHh, weight_h, cos, sin, rstd_NH)
        return y_BTHh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTHh: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x_BTHh, weight_h, cos, sin, rstd_NH = ctx.saved_tensors
        batch, tokens, heads, width = x_BTHh.shape
        grad_BTHh = grad_BTHh.contiguous()
        grad_x_BTHh = torch.empty_like(grad_BTHh)
        grad_weight_h = cos.new_empty(width)
        load_kernels().call(
            "heads_backward",
            int(x_BTHh.dtype is torch.bfloat16),
            *(grad_BTHh, x_BTHh, x_BTHh.stride(1), weight_h, cos, sin, cos.numel() * 2 // width, rstd_NH),
            *(grad_x_BTHh, heads * width, grad_weight_h, batch * tokens, heads, width),
        )
        return grad_x_BTHh, None if weight_h is None else grad_weight_h, None, None, None


_apply_norm: Callable[..., Tensor] = _Norm.apply
_apply_heads: Callable[..., Tensor] = _Heads.apply
