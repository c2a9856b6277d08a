"""Rotary position embeddings (arXiv 2104.09864), half-split layout: element j is paired with element j + h/2.

Legend: B batch, T time, H heads (of queries or of keys), h head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosines and sines for integer `positions` of any shape [...]: two tensors [..., 1, h/2], for all heads.

    Frequencies are ``theta ** (-2j / head_dim)``. Angles are computed in `dtype`: float32, or float64 for references;
    16-bit angles would be wrong by whole turns.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
    frequencies = (theta**-exponents).to(dtype)
    angles = positions.to(dtype)[..., None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BTHh: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of `x_BTHh` by the angles of its position; same shape and dtype."""
    cos, sin = cos.to(x_BTHh.dtype), sin.to(x_BTHh.dtype)
    first, second = x_BTHh.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
