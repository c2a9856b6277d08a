"""The softmax router of a mixture-of-experts layer, in float32 whatever the precision around it.

Legend: N tokens, D model width, E experts, K experts per token, L MoE layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen_core.model.config import ModelConfig


class Routing(NamedTuple):
    """The router's decision for N tokens.

    Attributes:
        logits_NE: float32 (float64 in a float64 model).
        selected_NK: int64 ids of the experts, highest probability first.
        weights_NK: the mixing weights, dtype of the logits.
    """

    logits_NE: Tensor
    selected_NK: Tensor
    weights_NK: Tensor


class RouterStatistics(NamedTuple):
    """What the routers of all MoE layers did in one forward pass; input of `fulmen_core.model.balance.balance_losses`.

    Attributes:
        logits: for each MoE layer, in layer order, [N, E]; gradients flow through them.
        selected: for each MoE layer [N, K], int64.
        valid_N: bool, False for tokens that do not count (padding); None if all do.
    """

    logits: tuple[Tensor, ...]
    selected: tuple[Tensor, ...]
    valid_N: Tensor | None

    def counts_LE(self) -> Tensor:
        """How often each expert was selected, float32 [L, E]."""
        selected_LNK = torch.stack(self.selected)
        layers, tokens, top_k = selected_LNK.shape
        ones = torch.ones(layers, tokens, top_k, device=selected_LNK.device)
        if self.valid_N is not None:
            ones = ones * self.valid_N[:, None]
        counts = ones.new_zeros(layers, self.logits[0].shape[-1])
        return counts.scatter_add(1, selected_LNK.flatten(1), ones.flatten(1))

    @property
    def load_LE(self) -> Tensor:
        """Share of the (token, selected expert) pairs that each expert received, float32 [L, E]; rows sum to 1."""
        counts_LE = self.counts_LE()
        return counts_LE / counts_LE.sum(1, keepdim=True).clamp(min=1)


class Router(nn.Module):
    """Selects the experts of the highest softmax probability; their weights sum to 1 if `norm_topk_prob`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k, self.normalise = config.num_experts_per_tok, config.norm_topk_prob
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))

    def forward(self, x_ND: Tensor) -> Routing:
        """Route each token of [N, D]."""
        dtype = torch.promote_types(x_ND.dtype, torch.float32)
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.to(dtype), self.weight.to(dtype))
            weights_NK, selected_NK = logits_NE.softmax(-1).topk(self.top_k, dim=-1)
            if self.normalise:
                weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        return Routing(logits_NE, selected_NK, weights_NK)
