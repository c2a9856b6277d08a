"""The router of a mixture-of-experts layer, in float32 whatever the precision around it.

Legend: N tokens, D model width, E experts, K experts per token, L MoE layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen_core.model.config import ModelConfig

_TINY = 1e-20  # what AFMoE adds to a sum of sigmoids that it divides by


class Routing(NamedTuple):
    """The router's decision for N tokens.

    Attributes:
        logits_NE: float32 (float64 in a float64 model).
        selected_NK: int64 ids of the experts, the highest ranked first.
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
        score: what turns the logits into scores: `ModelConfig.router_score`.
    """

    logits: tuple[Tensor, ...]
    selected: tuple[Tensor, ...]
    valid_N: Tensor | None
    score: Literal["softmax", "sigmoid"] = "softmax"

    def probabilities(self) -> Tensor:
        """The experts' scores as shares that sum to 1, [L, N, E]: what the balance losses call p_i(x)."""
        logits_LNE = torch.stack(self.logits)
        if self.score == "softmax":
            return logits_LNE.softmax(-1)
        scores_LNE = logits_LNE.sigmoid()
        return scores_LNE / (scores_LNE.sum(-1, keepdim=True) + _TINY)

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
    """Selects the experts of the highest score plus bias; they are mixed by their scores alone.

    Scores are softmax or sigmoid of the logits. The weights sum to 1 if `norm_topk_prob`, and are then multiplied by
    `router_scale`. The bias (arXiv 2408.15664) is a buffer: no gradient trains it, and it stays float32 in a model of
    any precision, as rounding it would rank other experts first.
    """

    bias: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k, self.normalise = config.num_experts_per_tok, config.norm_topk_prob
        self.score, self.scale = config.router_score, config.router_scale
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer(
            "bias", torch.zeros(config.num_experts, dtype=torch.float32) if config.router_bias else None
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        bias = self.bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if bias is not None and self.bias is not None and self.bias.dtype is not torch.float32:
            self.bias = bias.to(self.bias.device)
        return self

    def forward(self, x_ND: Tensor) -> Routing:
        """Route each token of [N, D]."""
        dtype = torch.promote_types(x_ND.dtype, torch.float32)
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.to(dtype), self.weight.to(dtype))
            scores_NE = logits_NE.softmax(-1) if self.score == "softmax" else logits_NE.sigmoid()
            if self.bias is None:
                weights_NK, selected_NK = scores_NE.topk(self.top_k, dim=-1)
            else:
                selected_NK = (scores_NE + self.bias).topk(self.top_k, dim=-1).indices
                weights_NK = scores_NE.gather(1, selected_NK)
            if self.normalise:
                total_N1 = weights_NK.sum(-1, keepdim=True)
                weights_NK = weights_NK / (total_N1 if self.score == "softmax" else total_N1 + _TINY)
            if self.scale != 1:
                weights_NK = weights_NK * self.scale
        return Routing(logits_NE, selected_NK, weights_NK)
