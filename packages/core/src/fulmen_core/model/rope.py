"""Rotary position embeddings (arXiv 2104.09864), half-split layout: element j is paired with element j + h/2.

Legend: B batch, T time, H heads (of queries or of keys), h head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fulmen_core.model.config import RopeScaling


def rotary(
    positions: Tensor,
    head_dim: int,
    theta: float,
    dtype: torch.dtype = torch.float32,
    scaling: RopeScaling | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for integer `positions` of any shape [...]: two tensors [..., 1, h/2], for all heads.

    Frequencies are those of `frequencies`. Angles are computed in `dtype`: float32, or float64 for references; 16-bit
    angles would be wrong by whole turns. Yarn's attention factor is multiplied in.
    """
    angles = positions.to(dtype)[..., None, None] * frequencies(head_dim, theta, scaling).to(positions.device, dtype)
    factor = attention_factor(scaling)
    return (angles.cos(), angles.sin()) if factor == 1 else (angles.cos() * factor, angles.sin() * factor)


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Angles a token, ``theta ** (-2j / head_dim)`` before scaling: float64 [h/2], on the CPU."""
    plain = theta ** -(torch.arange(0, head_dim, 2, device="cpu", dtype=torch.float64) / head_dim)
    if scaling is None:
        return plain
    stretched = plain / scaling.factor
    if scaling.rope_type == "linear":
        return stretched
    context = scaling.original_max_position_embeddings
    assert context is not None  # the config requires it of the other types
    if scaling.rope_type == "llama3":
        turns = context * plain / (2 * math.pi)  # within the original context
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    else:
        first = math.floor(_pair_of_turns(scaling.beta_fast, head_dim, theta, context))
        last = math.ceil(_pair_of_turns(scaling.beta_slow, head_dim, theta, context))
        first, last = max(first, 0), min(last, head_dim - 1)
        ramp = (torch.arange(head_dim // 2, device="cpu", dtype=torch.float64) - first) / max(last - first, 0.001)
        kept = 1 - ramp.clamp(0, 1)
    return stretched * (1 - kept) + plain * kept


def attention_factor(scaling: RopeScaling | None) -> float:
    """What cosines and sines are multiplied by: 1 but for yarn."""
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


def _pair_of_turns(turns: float, head_dim: int, theta: float, context: int) -> float:
    """The index, between whole ones, of the pair of elements that turns so many times within `context` tokens."""
    return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))


def rotate(x_BTHh: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of `x_BTHh` by the angles of its position; same shape and dtype."""
    cos, sin = cos.to(x_BTHh.dtype), sin.to(x_BTHh.dtype)
    first, second = x_BTHh.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
