"""Fine-grained experts (report section 2.1, arXiv 2401.06066): many narrow SwiGLU networks in two packed tensors.

Legend: N tokens, D model width, E experts, K experts per token, F expert width, G = 2F (rows of the gate, then of the up
projection), M = N*K rows sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.router import Routing

Implementation = Literal["grouped", "dense"]


class Experts(nn.Module):
    """``y = sum_k weight_k * down_k(silu(gate_k(x)) * up_k(x))`` over the selected experts. No token is ever dropped.

    `implementation` chooses between two exact formulations of it:

    - "grouped": rows sorted by expert, then two grouped matrix products. Work grows with K.
    - "dense": all experts for all tokens as two plain matrix products, unselected ones weighted by zero. Work grows with E,
      but the shapes are static: it compiles whole, exports to ONNX, and wins on a CPU in bfloat16 for small models.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.implementation: Implementation = "grouped"
        experts, width, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_EGD = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_EFD = nn.Parameter(torch.empty(experts, inner, width))

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """Mix the selected experts' outputs: [N, D] in the dtype of the products (autocast's, or the input's)."""
        formulations: dict[str, Callable[[Tensor, Tensor, Tensor, Routing], Tensor]] = {
            "grouped": grouped,
            "dense": dense,
        }
        return formulations[self.implementation](x_ND, self.gate_up_EGD, self.down_EFD, routing)


def swiglu(gate_up_G: Tensor) -> Tensor:
    """``silu(gate) * up`` of a last dimension that holds the gate, then up: arXiv 2002.05202."""
    gate_F, up_F = gate_up_G.chunk(2, dim=-1)
    return F.silu(gate_F) * up_F


def grouped(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """The experts as grouped matrix products over rows sorted by expert.

    The offsets end at the last row, as the gradient of rows beyond them would be uninitialised memory, and the gradients that
    enter the products are contiguous, as expanded ones are refused.
    """
    dtype = _product_dtype(x_ND)
    tokens, top_k = routing.selected_NK.shape
    selected_M = routing.selected_NK.flatten()
    order_M = selected_M.argsort(stable=True)
    counts_E = selected_M.new_zeros(down_EFD.shape[0]).scatter_add(0, selected_M, torch.ones_like(selected_M))
    offsets_E = counts_E.cumsum(0).to(torch.int32)
    x_MD = x_ND.to(dtype)[order_M // top_k]
    hidden_MF = swiglu(F.grouped_mm(x_MD, gate_up_EGD.to(dtype).transpose(1, 2), offs=offsets_E))
    y_MD = F.grouped_mm(hidden_MF, down_EFD.to(dtype), offs=offsets_E)
    y_NKD = y_MD[order_M.argsort()].view(tokens, top_k, -1)
    return (y_NKD * routing.weights_NK.to(dtype)[..., None]).sum(1)


def dense(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """All experts as one wide network whose hidden units are scaled by their expert's weight, zero if not selected."""
    experts, inner, _ = down_EFD.shape
    weights_NK = routing.weights_NK
    weights_NE = weights_NK.new_zeros(len(weights_NK), experts).scatter(1, routing.selected_NK, weights_NK)
    gate_up_NEG = F.linear(x_ND, gate_up_EGD.flatten(0, 1)).unflatten(-1, (experts, 2 * inner))
    hidden_NEF = swiglu(gate_up_NEG) * weights_NE.to(gate_up_NEG.dtype)[..., None]
    return hidden_NEF.flatten(1) @ down_EFD.flatten(0, 1)


def _product_dtype(x_ND: Tensor) -> torch.dtype:
    # Autocast does not know grouped products: follow it by hand.
    device = x_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_ND.dtype
