"""The dtype that matrix products run in, for operations that autocast does not know."""

from __future__ import annotations

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on for `x`'s device, the dtype of `x` otherwise."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
