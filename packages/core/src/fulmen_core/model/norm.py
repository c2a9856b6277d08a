"""Root-mean-square normalisation (arXiv 1910.07467).

Legend: D normalised width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x_D: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimension, in float32 or wider; returns the input's dtype."""
    dtype = torch.promote_types(x_D.dtype, torch.float32)
    return F.rms_norm(x_D.to(dtype), weight_D.shape, weight_D.to(dtype), eps).to(x_D.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned weight; `function` is what computes it (see `fulmen_core.model.operations`)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.function: Callable[[Tensor, Tensor, float], Tensor] = rms_norm

    def forward(self, x_D: Tensor) -> Tensor:
        """Normalise [..., D]."""
        return self.function(x_D, self.weight, self.eps)
