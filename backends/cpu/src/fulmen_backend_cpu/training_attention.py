"""Attention of a training step: which of the compiled forms a processor is fast in.

Legend: B batch, T tokens, H heads, K kv heads, h head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fulmen_backend_cpu.training_attention_fused import attend_fused
from fulmen_backend_cpu.training_attention_products import attend_by_products
from fulmen_backend_cpu.training_kernels import LANES, panels_are_faster
from fulmen_core.model.attention import attend
from fulmen_core.model.masks import FirstKeys, Mask


def native_attend(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: Mask) -> Tensor:
    """`fulmen_core.model.attention.attend` for a mask of `first_keys`."""
    low = q_BTHh.dtype in (torch.bfloat16, torch.float32) and q_BTHh.dtype == k_BTKh.dtype == v_BTKh.dtype
    if not isinstance(mask, FirstKeys) or not low or q_BTHh.shape[3] % LANES:
        return attend(q_BTHh, k_BTKh, v_BTKh, mask)
    fused = q_BTHh.dtype is torch.bfloat16 and panels_are_faster()
    return (attend_fused if fused else attend_by_products)(q_BTHh, k_BTKh, v_BTKh, mask)
