"""The feed-forward half of a block for serving: the formulation of the experts that is fastest for so few tokens.

Legend: N tokens, D model width, E experts, K experts per token, F expert width, G = 2F, M = N*K.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fulmen_core.model.block import Block
from fulmen_core.model.experts import Experts, dense, grouped, swiglu
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.router import Routing


def feed_forward(block: Block, x_1ND: Tensor) -> Tensor:
    """`Block.feed_forward` for inference: [1, N, D] to [1, N, D], norm and residual included."""
    ffn = block.ffn
    if isinstance(ffn, DenseFeedForward):
        return block.feed_forward(x_1ND)
    x_ND = block.ffn_norm(x_1ND)[0]
    y_ND = _mix(ffn.experts, x_ND, ffn.router(x_ND))
    if ffn.shared is not None:
        y_ND = y_ND + ffn.shared(x_ND)
    return block.add_feed_forward(x_1ND, y_ND[None])


def _mix(experts: Experts, x_ND: Tensor, routing: Routing) -> Tensor:
    formulation = {"chosen": chosen, "dense": dense, "grouped": grouped}[
        fastest(len(x_ND), routing.selected_NK.shape[1], experts.down_EFD.shape, x_ND.dtype)
    ]
    return formulation(x_ND, experts.gate_up_EGD, experts.down_EFD, routing)


def fastest(tokens: int, top_k: int, shape_EFD: Sequence[int], dtype: torch.dtype) -> str:
    """Name the fastest formulation: "chosen", "dense" or "grouped".

    Fitted to CPU time on one thread, microseconds for a layer (chosen / dense / grouped):

    | | N=1 | N=8 | N=64 | N=256 |
    |---|---|---|---|---|
    | float32, E=16 K=4 D=256 F=96 | 69 / 93 / 180 | 314 / 309 / 246 | - / 1833 / 672 | - / 6851 / 2436 |
    | float32, E=64 K=8 D=512 F=256 | 752 / 6322 / 1018 | 6250 / 12860 / 5429 | - / 50004 / 13550 | - / 156223 / 26215 |
    | bfloat16, E=16 K=4 D=256 F=96 | 168 / 122 / 888 | 1230 / 155 / 1262 | - / 598 / 1542 | - / 2188 / 2130 |
    | bfloat16, E=64 K=8 D=512 F=256 | 760 / 3958 / 10285 | 6572 / 5118 / 14468 | - / 12852 / 17910 | - / 39080 / 20690
    |
    """
    experts, inner, width = shape_EFD
    rows = tokens * top_k
    if dtype == torch.bfloat16:
        # A product of one row costs as much as reading 200,000 weights, on top of reading its own; all experts together
        # are read twice as fast. Grouped products round each expert's rows up to 64.
        weights = 3 * width * inner
        if 2 * rows * (200_000 + weights) < experts * weights:
            return "chosen"
        return "dense" if tokens < 192 else "grouped"
    if rows < experts:
        return "chosen"
    return "dense" if tokens * experts * width * inner <= 1_000_000 else "grouped"


def chosen(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """One token and expert after another, where the weights lie: nothing is sorted or copied. For few tokens."""
    pairs = [(token, expert) for token, row in enumerate(routing.selected_NK.tolist()) for expert in row]
    gate_up_MG = torch.cat([F.linear(x_ND[token : token + 1], gate_up_EGD[expert]) for token, expert in pairs])
    hidden_MF = swiglu(gate_up_MG) * routing.weights_NK.to(x_ND.dtype).view(-1, 1)
    y_ND = torch.zeros_like(x_ND)
    for pair, (token, expert) in enumerate(pairs):
        y_ND[token : token + 1].addmm_(hidden_MF[pair : pair + 1], down_EFD[expert])
    return y_ND
