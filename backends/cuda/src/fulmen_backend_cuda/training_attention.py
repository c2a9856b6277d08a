"""Attention of a training step: FlexAttention where a window or documents cut rows, FlashAttention where nothing does.

Legend: B batch, T tokens, H heads, K kv heads, h head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from fulmen_backend_cuda.block_masks import dense_mask
from fulmen_core.model.attention import attend as attend_by_torch
from fulmen_core.model.masks import Mask

_NARROWEST = 16  # head width that FlexAttention's kernels take


def attend(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: Mask) -> Tensor:
    """`fulmen_core.model.attention.attend` for a mask of `build_block_mask`.

    Tensors on the CPU take PyTorch's own attention over the same mask: FlexAttention has no backward pass there.
    """
    blocks: object = mask
    if not isinstance(blocks, BlockMask):
        return attend_by_torch(q_BTHh, k_BTKh, v_BTKh, mask)
    if q_BTHh.device.type == "cpu" or q_BTHh.shape[3] < _NARROWEST:
        return attend_by_torch(q_BTHh, k_BTKh, v_BTKh, dense_mask(blocks))
    return attend_by_flex(q_BTHh, k_BTKh, v_BTKh, blocks)


def attend_by_flex(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: BlockMask) -> Tensor:
    """FlexAttention (arXiv 2412.05496) over a block mask: [B, T, H, h]."""
    grouped = q_BTHh.shape[2] != k_BTKh.shape[2]
    # In a model that is compiled as a whole it becomes part of that.
    flex: Any = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    o_BHTh: Tensor = flex(
        q_BTHh.transpose(1, 2), k_BTKh.transpose(1, 2), v_BTKh.transpose(1, 2), block_mask=mask, enable_gqa=grouped
    )
    return o_BHTh.transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Any]:
    """FlexAttention as a kernel; made when first needed, as torch's compiler takes seconds to import."""
    return torch.compile(flex_attention, fullgraph=True)
