"""Attention as one kernel each way, for processors whose bfloat16 products are made of vectors: nothing of T*T is kept.

Scores exist for a few queries and keys at a time; the backward pass computes them again from two numbers for each query
(FlashAttention-2, arXiv 2307.08691). A query meets the keys that window and document let it see, rounded up to 16.

Legend: B batch, T tokens, H heads, K kv heads, G = H/K query heads a kv head, h head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cpu.training_attention_products import adjacent
from fulmen_backend_cpu.training_kernels import load_kernels
from fulmen_core.model.masks import FirstKeys


def attend_fused(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: FirstKeys) -> Tensor:
    """Attention [B, T, H, h] of bfloat16 tensors, h a multiple of `LANES`. Results do not depend on threads."""
    return _apply(q_BTHh, k_BTKh, v_BTKh, mask.first_BT)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, first_BT: Tensor) -> Tensor:
        inputs = (adjacent(q_BTHh), adjacent(k_BTKh), adjacent(v_BTKh), first_BT.contiguous())
        o_BTHh = q_BTHh.new_empty(q_BTHh.shape)
        most_BKTG, log_total_BKTG = q_BTHh.new_empty((2, *q_BTHh.shape[:3]), dtype=torch.float32)
        load_kernels().call("attention_forward", *_arguments(*inputs), o_BTHh, most_BKTG, log_total_BKTG)
        ctx.save_for_backward(*inputs, most_BKTG, log_total_BKTG)
        return o_BTHh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTHh: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        *inputs, most_BKTG, log_total_BKTG = ctx.saved_tensors
        grad_BTHh = adjacent(grad_BTHh)
        grads = [x.new_empty(x.shape) for x in inputs[:3]]
        load_kernels().call(
            *("attention_backward", grad_BTHh, grad_BTHh.stride(1)),
            *(*_arguments(*inputs), most_BKTG, log_total_BKTG, *grads),
        )
        return grads[0], grads[1], grads[2], None


_apply: Callable[..., Tensor] = _Attend.apply


def _arguments(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, first_BT: Tensor) -> list[Tensor | int]:
    """What both kernels are told of the inputs: each with the distance of its tokens, then the sizes."""
    batch, tokens, heads, width = q_BTHh.shape
    kv_heads = k_BTKh.shape[2]
    rows: list[Tensor | int] = [part for x in (q_BTHh, k_BTKh, v_BTKh) for part in (x, x.stride(1))]
    first_stride = tokens if len(first_BT) > 1 else 0
    return [*rows, first_BT, first_stride, batch, tokens, kv_heads, heads // kv_heads, width]
