"""Fine-grained experts (report section 2.1, arXiv 2401.06066): many narrow SwiGLU networks in two packed tensors.

Legend: N tokens, D model width, E experts, K experts per token, F expert width, G = 2F (rows of the gate projection,
then of the up projection), I and O the sizes of a product, M = N*K (token, selection) pairs, R rows sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.expert_rows import combine, dispatch, sort_rows, weighted_sum
from fulmen_core.model.precision import product_dtype
from fulmen_core.model.router import Routing

Implementation = Literal["grouped", "dense"]


class Experts(nn.Module):
    """``y = sum_k weight_k * down_k(silu(gate_k(x)) * up_k(x))`` over the selected experts. No token is ever dropped.

    `implementation` chooses between two exact formulations of it:

    - "grouped": rows sorted by expert, then two grouped matrix products. Work grows with K.
    - "dense": all experts for all tokens as two plain matrix products, unselected ones weighted by zero. Work grows
      with E, but no operation is special: it exports to ONNX and compiles in any precision.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.implementation: Implementation = "grouped"
        self.grouped: Callable[[Tensor, Tensor, Tensor, Routing], Tensor] = grouped
        experts, width, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_EGD = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_EFD = nn.Parameter(torch.empty(experts, inner, width))

    def forward(self, x_ND: Tensor, routing: Routing, recompute: bool = False) -> Tensor:
        """Mix the selected experts' outputs: [N, D] in the dtype of the products (autocast's, or the input's).

        With `recompute` nothing between input and output is kept: it is computed again in the backward pass.
        """
        formulations: dict[str, Callable[[Tensor, Tensor, Tensor, Routing], Tensor]] = {
            "grouped": self.grouped,
            "dense": dense,
        }
        arguments = (x_ND, self.gate_up_EGD, self.down_EFD, routing)
        formulation = formulations[self.implementation]
        if not recompute:
            return formulation(*arguments)
        again: Tensor = checkpoint(formulation, *arguments, use_reentrant=False, preserve_rng_state=False)
        return again


def swiglu(gate_up_G: Tensor) -> Tensor:
    """``silu(gate) * up`` of a last dimension that holds the gate, then up: arXiv 2002.05202."""
    gate_F, up_F = gate_up_G.chunk(2, dim=-1)
    return F.silu(gate_F) * up_F


def grouped(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """The experts as grouped matrix products over rows sorted by expert.

    The offsets end at the last row, as the gradient of rows beyond them would be uninitialised; filler rows are zero.
    """
    dtype = product_dtype(x_ND)
    tokens, top_k = routing.selected_NK.shape
    experts = down_EFD.shape[0]
    rows = sort_rows(routing.selected_NK, experts, _row_multiple(x_ND.device, dtype, tokens * top_k, experts))
    x_RD = dispatch(x_ND.to(dtype), rows, top_k)
    hidden_RF = swiglu(_product(x_RD, gate_up_EGD.to(dtype).transpose(1, 2), rows.ends_E))
    y_MD = combine(_product(hidden_RF, down_EFD.to(dtype), rows.ends_E), rows)
    return weighted_sum(y_MD, routing.weights_NK)


def _product(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    if x_RI.dtype is torch.float64:  # for references: grouped_mm stops at 32 bits
        parts = zip(x_RI.tensor_split(ends_E[:-1].tolist()), weight_EIO, strict=True)
        return torch.cat([x @ weight_IO for x, weight_IO in parts])
    return F.grouped_mm(x_RI, weight_EIO, offs=ends_E)


def _row_multiple(device: torch.device, dtype: torch.dtype, pairs: int, experts: int) -> int:
    # On a CPU oneDNN compiles a kernel for each new number of rows of a 16-bit product, dearer than the product itself.
    # Rounding keeps the numbers few; it follows the mean, so that filler never outweighs the rows.
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return 1
    return 64 if pairs >= 64 * experts else 8 if pairs >= 8 * experts else 1


def dense(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """All experts as one wide network whose hidden units are scaled by their expert's weight, zero if not selected."""
    experts, inner, _ = down_EFD.shape
    weights_NK = routing.weights_NK
    weights_NE = weights_NK.new_zeros(len(weights_NK), experts).scatter(1, routing.selected_NK, weights_NK)
    gate_up_NEG = torch.unflatten(F.linear(x_ND, gate_up_EGD.flatten(0, 1)), -1, (experts, 2 * inner))
    hidden_NEF = swiglu(gate_up_NEG) * weights_NE.to(gate_up_NEG.dtype)[..., None]
    return hidden_NEF.flatten(1) @ down_EFD.flatten(0, 1)
