"""The feed-forward half of a block for serving: experts in the form that is fastest for so many tokens on a device.

Legend: N tokens, D model width, E experts, K experts per token, F expert width, G = 2F, M = N*K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fulmen_backend_cuda.fp8 import ALIGNMENT, Rows8, grouped_product8, to_rows8
from fulmen_backend_cuda.support import Support
from fulmen_core.model.block import Block
from fulmen_core.model.expert_rows import combine, dispatch, sort_rows, weighted_sum
from fulmen_core.model.experts import Experts, dense, grouped, swiglu
from fulmen_core.model.feed_forward import DenseFeedForward, MixtureFeedForward
from fulmen_core.model.router import Routing

Formulation = Literal["grouped", "dense", "gathered"]
#: More tokens than this make the products of all experts dearer than reading their weights.
_DENSE_UP_TO = 128

Mix = Callable[[Tensor, Routing], Tensor]


def feed_forward(block: Block, x_ND: Tensor, mix: Mix | None) -> Tensor:
    """`Block.feed_forward` for inference, [N, D], with `mix` in the place of the experts, None for a dense network."""
    ffn = block.ffn
    if mix is None or isinstance(ffn, DenseFeedForward):
        return block.feed_forward(x_ND)
    normed_ND = block.ffn_norm(x_ND)
    y_ND = mix(normed_ND, ffn.router(normed_ND))
    if ffn.shared is not None:
        y_ND = y_ND + ffn.shared(normed_ND)
    return block.add_feed_forward(x_ND, y_ND)


def formulation(tokens: int, top_k: int, experts: int, dtype: torch.dtype, support: Support) -> Formulation:
    """Which form is fastest. "grouped" waits for the host where one kernel for all experts is missing.

    "gathered" copies the weights of each token's experts, "dense" computes all experts: both read no more than that.
    """
    if not support.kernels or (support.grouped and dtype is torch.bfloat16):
        return "grouped"
    if 4 * tokens * top_k <= experts:
        return "gathered"
    return "dense" if tokens <= _DENSE_UP_TO else "grouped"


def needs_host(tokens: int, top_k: int, experts: int, dtype: torch.dtype, support: Support) -> bool:
    """Whether experts of so many tokens wait for the host, so that no CUDA graph can hold them."""
    one_kernel = not support.kernels or (support.grouped and dtype is torch.bfloat16)
    return not one_kernel and formulation(tokens, top_k, experts, dtype, support) == "grouped"


class MixExperts:
    """The experts of one layer with the weights they have."""

    def __init__(self, experts: Experts, support: Support) -> None:
        self._experts, self._support = experts, support

    def __call__(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """The selected experts' mixed outputs [N, D]."""
        gate_up_EGD, down_EFD = self._experts.gate_up_EGD, self._experts.down_EFD
        top_k = routing.selected_NK.shape[1]
        name = formulation(len(x_ND), top_k, len(down_EFD), x_ND.dtype, self._support)
        form = {"grouped": grouped, "dense": dense, "gathered": gathered}[name]
        return form(x_ND, gate_up_EGD, down_EFD, routing)


class MixExperts8:
    """The experts of one layer in 8-bit floats with a scale for each output; what they multiply is rounded, too.

    Args:
        experts: give their weights up.
        device: where the 8-bit weights go.
    """

    def __init__(self, experts: Experts, device: torch.device) -> None:
        self._gate_up_EGD = _rounded(experts.gate_up_EGD.detach(), device)
        self._down_EDF = _rounded(experts.down_EFD.detach().transpose(1, 2), device)
        for name in ("gate_up_EGD", "down_EFD"):
            setattr(experts, name, nn.Parameter(torch.empty(0), requires_grad=False))

    def __call__(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """The selected experts' mixed outputs [N, D]."""
        rows = sort_rows(routing.selected_NK, len(self._down_EDF.scale), ALIGNMENT)
        x_RD = to_rows8(dispatch(x_ND, rows, routing.selected_NK.shape[1]))
        hidden_RF = swiglu(grouped_product8(x_RD, self._gate_up_EGD, rows.ends_E, x_ND.dtype))
        y_RD = grouped_product8(to_rows8(hidden_RF), self._down_EDF, rows.ends_E, x_ND.dtype)
        return weighted_sum(combine(y_RD, rows), routing.weights_NK)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(part.nbytes for rows in (self._gate_up_EGD, self._down_EDF) for part in rows)


def make_mixes(blocks: Sequence[Block], support: Support, device: torch.device, *, fp8: bool) -> list[Mix | None]:
    """For each block what mixes its experts; None for a dense network."""
    return [
        None
        if not isinstance(block.ffn, MixtureFeedForward)
        else MixExperts8(block.ffn.experts, device)
        if fp8
        else MixExperts(block.ffn.experts, support)
        for block in blocks
    ]


def gathered(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """Each token times the weights of its experts, which are copied for it. For few tokens."""
    tokens, top_k = routing.selected_NK.shape
    selected_M = routing.selected_NK.flatten()
    x_MD = x_ND.repeat_interleave(top_k, dim=0)
    gate_up_MG = torch.bmm(gate_up_EGD.index_select(0, selected_M), x_MD.unsqueeze(2)).squeeze(2)
    hidden_MF = swiglu(gate_up_MG) * routing.weights_NK.to(x_ND.dtype).view(-1, 1)
    y_MD = torch.bmm(hidden_MF.unsqueeze(1), down_EFD.index_select(0, selected_M)).squeeze(1)
    return y_MD.view(tokens, top_k, -1).sum(1)


def _rounded(weight_EOI: Tensor, device: torch.device) -> Rows8:
    rows = to_rows8(weight_EOI.contiguous())
    return Rows8(rows.x8.to(device), rows.scale.to(device))
