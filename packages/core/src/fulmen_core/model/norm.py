"""Root-mean-square normalisation (arXiv 1910.07467).

Legend: D normalised width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimension, in float32 or wider; returns the input's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_D: Tensor) -> Tensor:
        """Normalise [..., D]."""
        dtype = torch.promote_types(x_D.dtype, torch.float32)
        return F.rms_norm(x_D.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps).to(x_D.dtype)
