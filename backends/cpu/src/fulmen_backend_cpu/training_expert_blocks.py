"""The selected experts as one differentiable function in blocks of rows, for products of bfloat16 in vector registers.

Nothing is kept for the backward pass but the inputs and what the gates and ups are; the gradients of the weights are
float32 sums, as the weights are.

Legend: N tokens, D model width, E experts, K experts a token, F expert width, G = 2F, M = N*K (token, selection)
pairs, R rows sorted by expert, each expert's an even number; filler rows are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cpu.training_kernels import load_kernels

_UNIT = 2  # rows are summed over in pairs


class _ExpertBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, selected_NK: Tensor, weights_NK: Tensor
    ) -> Tensor:
        kernels = load_kernels()
        experts, inner, width = down_EFD.shape
        top_k = selected_NK.shape[1]
        x_ND, weights_NK = x_ND.contiguous(), weights_NK.float().contiguous()
        ends_E, row_M, pair_R = kernels.sort_pairs(selected_NK, experts, _UNIT)
        gate_up_RG = x_ND.new_empty(len(pair_R), 2 * inner, dtype=torch.bfloat16)
        y_RD = x_ND.new_empty(len(pair_R), width, dtype=torch.bfloat16)
        packed = x_ND.new_empty(3 * down_EFD.numel(), dtype=torch.bfloat16)
        kernels.call(
            "experts_forward",
            int(x_ND.dtype is torch.bfloat16),
            *(x_ND, gate_up_EGD, down_EFD, ends_E, pair_R, weights_NK),
            *(experts, width, inner, top_k, packed, gate_up_RG, y_RD),
        )
        ctx.save_for_backward(x_ND, gate_up_EGD, down_EFD, weights_NK, ends_E, row_M, pair_R, gate_up_RG)
        ctx.top_k = top_k
        return kernels.combine(y_RD, row_M, top_k, torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        kernels = load_kernels()
        x_ND, gate_up_EGD, down_EFD, weights_NK, ends_E, row_M, pair_R, gate_up_RG = ctx.saved_tensors
        experts, inner, width = down_EFD.shape
        grad_x_RD = gate_up_RG.new_empty(len(pair_R), width)
        grad_weights_NK = torch.empty_like(weights_NK)
        grad_gate_up_EGD, grad_down_EFD = torch.empty_like(gate_up_EGD), torch.empty_like(down_EFD)
        kernels.call(
            "experts_backward",
            int(x_ND.dtype is torch.bfloat16),
            *(grad_ND.float().contiguous(), x_ND, gate_up_EGD, down_EFD, ends_E, pair_R, weights_NK, gate_up_RG),
            *(experts, width, inner, ctx.top_k, gate_up_RG.new_empty(3 * down_EFD.numel())),
            *(grad_x_RD, grad_weights_NK, grad_gate_up_EGD, grad_down_EFD),
        )
        grad_x_ND = kernels.combine(grad_x_RD, row_M, ctx.top_k, x_ND.dtype)
        return grad_x_ND, grad_gate_up_EGD, grad_down_EFD, None, grad_weights_NK


#: Tokens [N, D] of bfloat16 or float32, contiguous float32 weights, routing; returns float32 [N, D].
experts_in_blocks: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = _ExpertBlocks.apply
