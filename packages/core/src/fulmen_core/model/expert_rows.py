"""Which row of a grouped product holds which (token, expert) pair, and how tokens get there and back.

Legend: N tokens, D model width, E experts, K experts per token, M = N*K (token, selection) pairs, R rows sorted by
expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ExpertRows(NamedTuple):
    """Which row holds which (token, selection) pair: R rows sorted by expert, each expert's rounded up to a multiple.

    Attributes:
        ends_E: where each expert's rows end, int32; the last end is R, which depends on shapes alone.
        row_M: the row of each pair.
        pair_R: the pair of each row, M for filler.
    """

    ends_E: Tensor
    row_M: Tensor
    pair_R: Tensor


def sort_rows(selected_NK: Tensor, experts: int, multiple: int) -> ExpertRows:
    """The rows of the experts that each token selected: int64 ids [N, K] of `experts` in all."""
    selected_M = selected_NK.flatten()
    pairs = selected_M.shape[0]
    pair_M = torch.arange(pairs, device=selected_M.device)
    order_M = selected_M.argsort(stable=True)
    counts_E = selected_M.new_zeros(experts).scatter_add(0, selected_M, torch.ones_like(selected_M))
    padded_E = (counts_E + (multiple - 1)) // multiple * multiple
    ends_E = padded_E.cumsum(0)
    shift_E = (ends_E - padded_E) - (counts_E.cumsum(0) - counts_E)
    row_M = torch.zeros_like(selected_M).scatter(0, order_M, pair_M + shift_E[selected_M[order_M]])
    rows = -(-(pairs + experts * (multiple - 1)) // multiple) * multiple
    pair_R = selected_M.new_full((rows,), pairs).scatter(0, row_M, pair_M)
    return ExpertRows(torch.cat((ends_E[:-1], ends_E.new_full((1,), rows))).to(torch.int32), row_M, pair_R)


class _Dispatch(torch.autograd.Function):
    """Copy each token to the rows of its experts. Autograd's own backward would scatter-add; gathering is faster."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, rows: ExpertRows, top_k: int) -> Tensor:
        ctx.save_for_backward(rows.row_M)
        ctx.top_k = top_k
        zero_1D = x_ND.new_zeros(1, x_ND.shape[1])
        return torch.cat((x_ND, zero_1D)).index_select(0, rows.pair_R // top_k)

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None, None]:
        (row_M,) = ctx.saved_tensors
        return grad_RD.index_select(0, row_M).view(-1, ctx.top_k, grad_RD.shape[1]).sum(1), None, None


class _Combine(torch.autograd.Function):
    """Put rows back in the order of their pairs. Filler gets some pair's gradient; its zeros make nothing of it."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, rows: ExpertRows) -> Tensor:
        ctx.save_for_backward(rows.pair_R)
        return y_RD.index_select(0, rows.row_M)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None]:
        (pair_R,) = ctx.saved_tensors
        return grad_MD.index_select(0, pair_R.clamp(max=grad_MD.shape[0] - 1)), None


#: Copies of tokens [N, D] in the rows of their `top_k` experts, filler zero: [R, D].
dispatch: Callable[[Tensor, ExpertRows, int], Tensor] = _Dispatch.apply
#: Rows [R, D] in the order of their pairs: [M, D].
combine: Callable[[Tensor, ExpertRows], Tensor] = _Combine.apply


def weighted_sum(y_MD: Tensor, weights_NK: Tensor) -> Tensor:
    """The pairs' rows times their tokens' weights, summed token by token: [N, D] in the dtype of the rows."""
    y_NKD = y_MD.view(*weights_NK.shape, y_MD.shape[1])
    weights_NK = weights_NK.to(y_MD.dtype)
    if y_MD.device.type == "cpu":
        return torch.bmm(weights_NK.unsqueeze(1), y_NKD).squeeze(1)
    # On a GPU the gradient of such a product is thousands of outer products, a sixth of a whole training step.
    return (weights_NK.unsqueeze(2) * y_NKD).sum(1)
