"""The feed-forward half of a block: one dense SwiGLU network, or routed experts with optional shared ones.

Legend: N tokens, D model width, F inner width.
"""

from __future__ import annotations

from torch import Tensor, nn

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.experts import Experts, swiglu
from fulmen_core.model.router import Router, Routing


class DenseFeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))`` with the rows of gate and up in one weight, gate first."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        y_ND: Tensor = self.down(swiglu(self.gate_up(x_ND)))
        return y_ND


class MixtureFeedForward(nn.Module):
    """Routed experts plus `num_shared_experts` that every token passes (DeepSeekMoE, arXiv 2401.06066)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        shared = config.num_shared_experts * config.moe_intermediate_size
        self.shared = DenseFeedForward(config.hidden_size, shared) if shared else None

    def forward(self, x_ND: Tensor, recompute_experts: bool = False) -> tuple[Tensor, Routing]:
        """Return the mixed outputs [N, D] and the router's decision."""
        routing = self.router(x_ND)
        y_ND: Tensor = self.experts(x_ND, routing, recompute_experts)
        return (y_ND if self.shared is None else y_ND + self.shared(x_ND)), routing
