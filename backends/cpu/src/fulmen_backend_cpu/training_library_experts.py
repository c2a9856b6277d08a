"""The selected experts as one differentiable function around the products of torch's libraries.

Legend: N tokens, D model width, E experts, K experts a token, F expert width, G = 2F, M = N*K (token, selection)
pairs, R rows sorted by expert, each expert's rounded up to a multiple; filler rows are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cpu.training_kernels import TrainingKernels, load_kernels


def row_unit(dtype: torch.dtype, pairs: int, experts: int) -> int:
    """The unit that an expert's rows are rounded up to: oneDNN compiles a kernel for each new number of 16-bit rows."""
    if dtype.itemsize != 2:
        return 1
    return 64 if pairs >= 256 * experts else 32 if pairs >= 64 * experts else 8 if pairs >= 8 * experts else 1


class _Experts(torch.autograd.Function):
    """Rows are weighted between the two products, so that the outputs need not be kept for the weights' gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        gate_up_EGD: Tensor,
        down_EFD: Tensor,
        selected_NK: Tensor,
        weights_NK: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        kernels = load_kernels()
        experts, inner = down_EFD.shape[:2]
        tokens, top_k = selected_NK.shape
        x_ND, weights_NK = x_ND.contiguous(), weights_NK.float().contiguous()
        unit = row_unit(dtype, tokens * top_k, experts)
        ends_E, row_M, pair_R = kernels.sort_pairs(selected_NK, experts, unit)
        x_RD = kernels.gather(x_ND, pair_R, top_k, dtype)
        gate_up_cast_EGD, down_cast_EFD = gate_up_EGD.to(dtype), down_EFD.to(dtype)
        gate_up_RG = _rows_by_weights(kernels, x_RD, gate_up_cast_EGD.transpose(1, 2), ends_E)
        hidden_RF = x_RD.new_empty(len(x_RD), inner)
        low = int(dtype is torch.bfloat16)
        kernels.call("swiglu_forward", low, gate_up_RG, pair_R, weights_NK, hidden_RF, len(x_RD), inner)
        y_RD = _rows_by_weights(kernels, hidden_RF, down_cast_EFD, ends_E)
        ctx.save_for_backward(gate_up_cast_EGD, down_cast_EFD, weights_NK, ends_E, row_M, pair_R, x_RD, gate_up_RG)
        ctx.top_k, ctx.x_dtype, ctx.weight_dtype = top_k, x_ND.dtype, down_EFD.dtype
        return kernels.combine(y_RD, row_M, top_k, torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        kernels = load_kernels()
        gate_up_EGD, down_EFD, weights_NK, ends_E, row_M, pair_R, x_RD, gate_up_RG = ctx.saved_tensors
        dtype, rows, inner, top_k = x_RD.dtype, len(x_RD), down_EFD.shape[1], ctx.top_k
        grad_RD = kernels.gather(grad_ND.contiguous(), pair_R, top_k, dtype)
        grad_hidden_RF = _rows_by_weights(kernels, grad_RD, down_EFD.transpose(1, 2), ends_E)
        grad_gate_up_RG, hidden_RF = torch.empty_like(gate_up_RG), torch.empty_like(grad_hidden_RF)
        grad_weights_NK = torch.empty_like(weights_NK)
        kernels.call(
            "swiglu_backward",
            int(dtype is torch.bfloat16),
            grad_hidden_RF,
            gate_up_RG,
            pair_R,
            weights_NK,
            grad_gate_up_RG,
            hidden_RF,
            grad_weights_NK,
            rows,
            inner,
        )
        grad_down_EFD = _rows_by_rows(kernels, hidden_RF, grad_RD, ends_E)
        grad_gate_up_EGD = _rows_by_rows(kernels, grad_gate_up_RG, x_RD, ends_E)
        grad_x_RD = _rows_by_weights(kernels, grad_gate_up_RG, gate_up_EGD, ends_E)
        return (
            kernels.combine(grad_x_RD, row_M, top_k, ctx.x_dtype),
            grad_gate_up_EGD.to(ctx.weight_dtype),
            grad_down_EFD.to(ctx.weight_dtype),
            None,
            grad_weights_NK,
            None,
        )


#: Tokens [N, D], weights, the router's selection and weights [N, K], the dtype of products; returns float32 [N, D].
experts_by_library: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, torch.dtype], Tensor] = _Experts.apply


def _rows_by_weights(kernels: TrainingKernels, x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """Each expert's rows times its weight, [R, O]."""
    if _one_thread_is_enough(x_RI):
        return F.grouped_mm(x_RI, weight_EIO, offs=ends_E)
    y_RO = x_RI.new_empty(len(x_RI), weight_EIO.shape[2])
    _each_expert(kernels, ends_E, lambda e, rows: torch.mm(x_RI[rows], weight_EIO[e], out=y_RO[rows]))
    return y_RO


def _rows_by_rows(kernels: TrainingKernels, x_RI: Tensor, y_RO: Tensor, ends_E: Tensor) -> Tensor:
    """Each expert's rows of `x_RI`, transposed, times those of `y_RO`: the gradients of its weight, [E, I, O]."""
    if _one_thread_is_enough(x_RI):
        return F.grouped_mm(x_RI.t(), y_RO, offs=ends_E)
    grad_EIO = x_RI.new_zeros(len(ends_E), x_RI.shape[1], y_RO.shape[1])
    _each_expert(kernels, ends_E, lambda e, rows: torch.mm(x_RI[rows].t(), y_RO[rows], out=grad_EIO[e]))
    return grad_EIO


def _one_thread_is_enough(x: Tensor) -> bool:
    # MKL, which multiplies float32, keeps its own number of threads.
    return torch.get_num_threads() == 1 or x.dtype is torch.float32


def _each_expert(kernels: TrainingKernels, ends_E: Tensor, work: Callable[[int, slice], object]) -> None:
    """Call `work` for each expert that has rows, every thread with its own: one product is too small to share."""
    ends = ends_E.tolist()
    spans = [(start, end, expert) for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False))]
    largest_first = iter(sorted((span for span in spans if span[1] > span[0]), key=lambda span: span[0] - span[1]))

    def part() -> None:
        with torch.no_grad():
            for start, end, expert in largest_first:
                work(expert, slice(start, end))

    kernels.on_each_thread(part)
