"""FlexAttention's block masks of windows and documents, made without ever looking at T*T pairs.

What a query sees are the keys from a first one to itself, and first keys never go back along a row (a window's and a
document's begin do not). So whole blocks of pairs are decided by the first and the last query of a block alone.

Legend: B batch (1: all rows alike), T tokens, Q blocks of queries, S blocks of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask

from fulmen_core.model.masks import FirstKeys, Mask, first_keys

BLOCK = 128

_MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def build_block_mask(tokens: int, window: int | None, segments_BT: Tensor | None, device: torch.device) -> Mask:
    """`fulmen_core.model.masks.build_mask`, for `fulmen_backend_cuda.training_attention.attend`.

    Returns None where plain causal attention is meant, which has the fastest kernel, and a `BlockMask` elsewhere.
    """
    if segments_BT is None and (window is None or window >= tokens):
        return None
    # A mask is whatever `attend` of the same `Operations` takes.
    return cast("Mask", block_mask(first_keys(tokens, window, segments_BT, device)))


def block_mask(keys: FirstKeys, block: int = BLOCK) -> BlockMask:
    """The block mask of a mask that is said by first keys, with blocks of `block` queries and as many keys."""
    first_BT = keys.first_BT
    tokens = first_BT.shape[1]
    blocks = -(-tokens // block)
    at_Q = torch.arange(blocks, device=first_BT.device)
    lowest_BQ = first_BT.index_select(1, at_Q * block)
    highest_BQ = first_BT.index_select(1, ((at_Q + 1) * block - 1).clamp(max=tokens - 1))
    at_S = at_Q
    below_QS = at_S < at_Q.unsqueeze(1)
    on_diagonal_QS = at_S == at_Q.unsqueeze(1)
    seen_BQS = (below_QS | on_diagonal_QS) & ((at_S + 1) * block > lowest_BQ.unsqueeze(2))
    whole_Q = (at_Q + 1) * block <= tokens  # the last block may end beyond the row
    full_BQS = below_QS & whole_Q.unsqueeze(1) & (at_S * block >= highest_BQ.unsqueeze(2))
    partial, full = _listed(seen_BQS & ~full_BQS), _listed(full_BQS)
    return BlockMask.from_kv_blocks(
        *partial,
        *full,
        BLOCK_SIZE=block,
        mask_mod=_sees(first_BT),
        seq_lengths=(tokens, tokens),
    )


def dense_mask(mask: BlockMask) -> Tensor:
    """The same as a bool tensor [B, 1, T, T], pair by pair."""
    batch, _, queries, keys = mask.shape
    return create_mask(mask.mask_mod, batch, 1, queries, keys, mask.kv_num_blocks.device)


def _sees(first_BT: Tensor) -> _MaskMod:
    """Whether query `q` of row `b` sees key `k`: integer scalars in, a bool scalar out, as FlexAttention asks."""
    if len(first_BT) == 1:
        first_T = first_BT.squeeze(0)

        def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:  # noqa: ARG001 - what it is given
            return (k <= q) & (k >= first_T[q])

        return sees

    def sees_in_row(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:  # noqa: ARG001 - what it is given
        return (k <= q) & (k >= first_BT[b, q])

    return sees_in_row


def _listed(chosen_BQS: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys are chosen for each block of queries, and which: int32 [B, 1, Q] and [B, 1, Q, S]."""
    chosen = chosen_BQS.unsqueeze(1).to(torch.int32)
    order = chosen.argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.to(torch.int32).contiguous()
