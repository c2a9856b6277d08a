"""Root-mean-square normalisation (arXiv 1910.07467).

Legend: D normalised width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension, computed in float32 or wider, returned in the input's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_D: Tensor) -> Tensor:
        return F.rms_norm(x_D, self.weight.shape, self.weight, self.eps)
