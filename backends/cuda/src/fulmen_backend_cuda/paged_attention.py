"""Attention of a serving step, for sequences with one token and for chunks; kernels where there are some, else PyTorch.

Legend: B sequences with one token, C chunks, N tokens of all chunks, S keys of all chunks, P places of a cache, n
blocks of a table, H heads, K kv heads, h head width, L keys that a table reaches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fulmen_backend_cuda.support import Support
from fulmen_core.model.attention import attend

_WIDEST_FLASH = 256  # head width; and it must be a multiple of 8
_HALF = (torch.bfloat16, torch.float16)
#: Wider heads in float32 take the decode kernel 148 KiB of shared memory, more than the 99 KiB of 8.6, 8.9 and 12.0.
_WIDEST_FLOAT32_KERNEL = 128


class Chunks(NamedTuple):
    """Where the tokens and keys of chunks lie in their rows: chunk c's are ``ends[c] .. ends[c+1]-1``.

    Attributes:
        queries: int32 [C+1], on the device; queries_host: the same as a list.
        keys: int32 [C+1], on the device; keys_host: the same as a list.
    """

    queries: Tensor
    keys: Tensor
    queries_host: list[int]
    keys_host: list[int]


class PagedAttention(NamedTuple):
    """The two forms of attention, and their names for `choices`.

    Attributes:
        decode: as `decode_by_torch` without `places`.
        chunks: as `chunks_by_torch`.
    """

    decode: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    chunks: Callable[[Tensor, Tensor, Tensor, Chunks, int | None], Tensor]
    description: str


def choose_attention(dtype: torch.dtype, width: int, places: int, support: Support) -> PagedAttention:
    """The fastest forms for heads of `width` in `dtype` and blocks of `places` on a device."""
    decode = partial(decode_by_torch, places=places)
    if not support.kernels:
        return PagedAttention(decode, chunks_by_torch, "torch: there is no GPU")
    how = "torch"
    if dtype in _HALF or width <= _WIDEST_FLOAT32_KERNEL:
        try:
            from fulmen_backend_cuda.decode_kernel import decode_by_kernel
        except ImportError:
            how = "torch, as Triton is not installed"
        else:
            decode = partial(decode_by_kernel, places=places, multiprocessors=support.multiprocessors)
            how = "a Triton kernel over block tables"
    if dtype in _HALF and width % 8 == 0 and width <= _WIDEST_FLASH:
        return PagedAttention(decode, chunks_by_flash, f"{how}; FlashAttention for chunks")
    return PagedAttention(decode, chunks_by_torch, f"{how}; torch for chunks, in {dtype} with heads of {width}")


def decode_by_torch(
    q_BHh: Tensor,
    k_PKh: Tensor,
    v_PKh: Tensor,
    table_Bn: Tensor,
    start_B: Tensor,
    end_B: Tensor,
    *,
    places: int,
) -> Tensor:
    """One token of each sequence over the keys in its blocks: [B, H, h].

    Args:
        q_BHh: queries.
        k_PKh: all keys of a cache; P is a whole number of blocks.
        v_PKh: all values of it.
        table_Bn: int32, the numbers of each sequence's blocks; what is behind its last one is any block's number.
        start_B: int32, the first key it sees, counted from the begin of its first block.
        end_B: int32, the end of those it sees; ``start < end``.
        places: of a block.
    """
    batch, heads, _ = q_BHh.shape
    kv_heads, width = k_PKh.shape[1:]
    at_L = torch.arange(table_Bn.shape[1] * places, device=q_BHh.device)
    seen_BL = (at_L >= start_B.unsqueeze(1)) & (at_L < end_B.unsqueeze(1))
    block_Bn1 = table_Bn.long().unsqueeze(2) * places
    place_BL = (block_Bn1 + torch.arange(places, device=q_BHh.device)).flatten(1)

    def taken(x_PKh: Tensor) -> Tensor:
        x_BLKh = x_PKh.index_select(0, place_BL.flatten()).view(batch, -1, kv_heads, width)
        # a mask gives what is not seen the weight zero, but zero times a NaN is NaN
        return torch.where(seen_BL.unsqueeze(2).unsqueeze(3), x_BLKh, 0).transpose(1, 2)

    # The query heads that read one kv head become its queries: the CPU's fused attention is slow for a single one.
    q_BKGh = q_BHh.view(batch, kv_heads, heads // kv_heads, width)
    o_BKGh = F.scaled_dot_product_attention(
        q_BKGh, taken(k_PKh), taken(v_PKh), attn_mask=seen_BL.unsqueeze(1).unsqueeze(2)
    )
    return o_BKGh.flatten(1, 2)


def chunks_by_torch(q_NHh: Tensor, k_SKh: Tensor, v_SKh: Tensor, chunks: Chunks, window: int | None) -> Tensor:
    """The tokens of chunks over their keys, the last of which are their own: [N, H, h].

    Args:
        q_NHh: queries of all chunks, one after the other.
        k_SKh: keys of all chunks, one after the other; token t of a chunk is its ``keys - queries + t``-th key.
        v_SKh: their values.
        chunks: where each chunk lies in both.
        window: keys that a token sees, its own included; None: all up to its own.
    """
    parts = []
    for number in range(len(chunks.queries_host) - 1):
        q = q_NHh.narrow(0, *_span(chunks.queries_host, number))
        k, v = (x.narrow(0, *_span(chunks.keys_host, number)) for x in (k_SKh, v_SKh))
        own, all_keys = len(q), len(k)
        at = torch.arange(all_keys, device=q.device)
        behind = torch.arange(all_keys - own, all_keys, device=q.device).unsqueeze(1) - at
        mask = behind >= 0 if window is None else (behind >= 0) & (behind < window)
        parts.append(attend(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), mask).squeeze(0))
    return torch.cat(parts)


def chunks_by_flash(q_NHh: Tensor, k_SKh: Tensor, v_SKh: Tensor, chunks: Chunks, window: int | None) -> Tensor:
    """`chunks_by_torch` as one kernel: FlashAttention 2 (arXiv 2307.08691), which aligns the last token and key."""
    from torch.nn.attention.varlen import varlen_attn

    o_NHh = varlen_attn(
        q_NHh,
        k_SKh,
        v_SKh,
        chunks.queries,
        chunks.keys,
        _longest(chunks.queries_host),
        _longest(chunks.keys_host),
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=q_NHh.shape[1] != k_SKh.shape[1],
    )
    assert isinstance(o_NHh, Tensor)  # a pair if more than the result is asked for
    return o_NHh


def _span(ends: list[int], number: int) -> tuple[int, int]:
    return ends[number], ends[number + 1] - ends[number]


def _longest(ends: list[int]) -> int:
    return max(end - begin for begin, end in itertools.pairwise(ends))
