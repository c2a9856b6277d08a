"""Attention of a training step: which of the compiled forms a processor is fast in.

Legend: B batch, T tokens, H heads, K kv heads, h head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fulmen_backend_cpu.training_attention_fused import attend_fused
from fulmen_backend_cpu.training_attention_products import attend_by_products
from fulmen_backend_cpu.training_kernels import LANES
from fulmen_core.model.attention import attend
from fulmen_core.model.masks import FirstKeys, Mask


def native_attend(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: Mask) -> Tensor:
    """`fulmen_core.model.attention.attend` for a mask of `first_keys`."""
    low = q_BTHh.dtype in (torch.bfloat16, torch.float32) and q_BTHh.dtype == k_BTKh.dtype == v_BTKh.dtype
    if not isinstance(mask, FirstKeys) or not low or q_BTHh.shape[3] % LANES:
        return attend(q_BTHh, k_BTKh, v_BTKh, mask)
    fused = q_BTHh.dtype is torch.bfloat16 and _fused_here()
    return (attend_fused if fused else attend_by_products)(q_BTHh, k_BTKh, v_BTKh, mask)


def choose_fused(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor with these `torch.cpu.get_capabilities()` is fastest in bfloat16 with the fused kernels.

    They multiply with vectors; a processor that has matrix units (AMX) is faster in oneDNN's products, which use them.
    """
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")


@cache
def _fused_here() -> bool:
    return choose_fused(torch.cpu.get_capabilities())
