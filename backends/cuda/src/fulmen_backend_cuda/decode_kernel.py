"""One token of many sequences over keys and values in blocks, as a Triton kernel: flash decoding with block tables.

A program takes one sequence, one kv head with all query heads that read it, and one of `splits` spans of the keys; a
second kernel puts the spans' results together (flash decoding, pytorch.org/blog/flash-decoding; PagedAttention, arXiv
2309.06180). PyTorch's own FlashAttention takes no block table unless FlashAttention 3 is installed beside it.

What lies in a block beyond a sequence's keys is never read: it may be anything, NaN included.

Legend: B sequences, H heads, K kv heads, G = H/K, h head width, n blocks of a table, P places of a block, S splits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_NARROWEST = 16  # of both sides of a product on the matrix units


@triton.jit  # type: ignore[untyped-decorator]
def _attend_span(  # type: ignore[no-untyped-def]  # Triton's own types
    q_BHh,
    k_PKh,
    v_PKh,
    table_Bn,
    start_B,
    end_B,
    o_BKSGh,
    most_BKSG,
    total_BKSG,
    scale,
    width: tl.constexpr,
    kv_heads: tl.constexpr,
    group: tl.constexpr,
    blocks: tl.constexpr,
    places: tl.constexpr,
    splits: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    sequence, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, end = tl.load(start_B + sequence), tl.load(end_B + sequence)
    each = tl.cdiv(tl.cdiv(end, places), splits)  # blocks of a span

    at_G, at_h, at_P = tl.arange(0, GROUP), tl.arange(0, WIDTH), tl.arange(0, places)
    in_head = at_h < width
    row_G = (sequence * kv_heads + kv_head) * group + at_G
    q_Gh = tl.load(q_BHh + row_G[:, None] * width + at_h, mask=(at_G[:, None] < group) & in_head, other=0.0)

    most_G = tl.full([GROUP], float("-inf"), tl.float32)
    total_G = tl.zeros([GROUP], tl.float32)
    o_Gh = tl.zeros([GROUP, WIDTH], tl.float32)
    first, last = split * each, tl.minimum((split + 1) * each, tl.cdiv(end, places))
    for block in range(first, last):
        key_P = block * places + at_P
        seen_P = (key_P >= start) & (key_P < end)
        # 64 bits: a cache may hold more than 2^31 elements
        place_P = tl.load(table_Bn + sequence * blocks + block).to(tl.int64) * places + at_P
        address = (place_P[:, None] * kv_heads + kv_head) * width + at_h
        readable = seen_P[:, None] & in_head
        k_Ph = tl.load(k_PKh + address, mask=readable, other=0.0)
        v_Ph = tl.load(v_PKh + address, mask=readable, other=0.0)
        scores_GP = tl.dot(q_Gh, tl.trans(k_Ph), input_precision="ieee") * scale
        scores_GP = tl.where(seen_P, scores_GP, float("-inf"))
        new_G = tl.maximum(most_G, tl.max(scores_GP, 1))
        # a span may begin with blocks that hold nothing of the window
        shift_G = tl.where(new_G == float("-inf"), 0.0, new_G)
        weights_GP = tl.exp(scores_GP - shift_G[:, None])
        keep_G = tl.exp(most_G - shift_G)
        total_G = total_G * keep_G + tl.sum(weights_GP, 1)
        o_Gh = o_Gh * keep_G[:, None] + tl.dot(weights_GP.to(v_Ph.dtype), v_Ph, input_precision="ieee")
        most_G = new_G

    out_G = ((sequence * kv_heads + kv_head) * splits + split) * group + at_G
    in_group = at_G < group
    tl.store(most_BKSG + out_G, most_G, mask=in_group)
    tl.store(total_BKSG + out_G, total_G, mask=in_group)
    tl.store(o_BKSGh + out_G[:, None] * width + at_h, o_Gh, mask=in_group[:, None] & in_head)


@triton.jit  # type: ignore[untyped-decorator]
def _join_spans(  # type: ignore[no-untyped-def]  # Triton's own types
    o_BKSGh,
    most_BKSG,
    total_BKSG,
    out_BHh,
    width: tl.constexpr,
    group: tl.constexpr,
    splits: tl.constexpr,
    WIDTH: tl.constexpr,
):
    reader, member = tl.program_id(0), tl.program_id(1)
    at_h = tl.arange(0, WIDTH)
    in_head = at_h < width
    most = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    o_h = tl.zeros([WIDTH], tl.float32)
    for split in range(splits):
        at = (reader * splits + split) * group + member
        span_most = tl.load(most_BKSG + at)
        new = tl.maximum(most, span_most)
        shift = tl.where(new == float("-inf"), 0.0, new)  # spans before the window are empty
        keep, share = tl.exp(most - shift), tl.exp(span_most - shift)
        total = total * keep + tl.load(total_BKSG + at) * share
        o_h = o_h * keep + tl.load(o_BKSGh + at * width + at_h, mask=in_head, other=0.0) * share
        most = new
    out = (reader * group + member) * width + at_h
    tl.store(out_BHh + out, (o_h / total).to(out_BHh.dtype.element_ty), mask=in_head)


def decode_by_kernel(
    q_BHh: Tensor,
    k_PKh: Tensor,
    v_PKh: Tensor,
    table_Bn: Tensor,
    start_B: Tensor,
    end_B: Tensor,
    *,
    places: int,
    multiprocessors: int,
) -> Tensor:
    """`fulmen_backend_cuda.paged_attention.decode_by_torch`, as kernels. Needs nothing of the host.

    Args:
        places: of a block, a power of two, 16 at least.
        multiprocessors: of the device; the keys are split until two programs wait for each.
    """
    batch, heads, width = q_BHh.shape
    kv_heads, blocks = k_PKh.shape[1], table_Bn.shape[1]
    group = heads // kv_heads
    splits = max(1, min(blocks, -(-2 * multiprocessors // (batch * kv_heads))))
    o_BKSGh = q_BHh.new_empty((batch, kv_heads, splits, group, width), dtype=torch.float32)
    most_BKSG, total_BKSG = (q_BHh.new_empty(o_BKSGh.shape[:-1], dtype=torch.float32) for _ in range(2))
    out_BHh = torch.empty_like(q_BHh, memory_format=torch.contiguous_format)
    sizes = kernel_sizes(width, kv_heads, group, blocks, places, splits)
    attend: Any = _attend_span[(batch, kv_heads, splits)]
    attend(
        *(q_BHh.contiguous(), k_PKh, v_PKh, table_Bn, start_B, end_B, o_BKSGh, most_BKSG, total_BKSG),
        width**-0.5,
        **sizes,
    )
    join: Any = _join_spans[(batch * kv_heads, group)]
    join(o_BKSGh, most_BKSG, total_BKSG, out_BHh, **{name: sizes[name] for name in JOINED_SIZES})
    return out_BHh


#: Of `kernel_sizes`, what `_join_spans` is compiled for.
JOINED_SIZES = ("width", "group", "splits", "WIDTH")


def kernel_sizes(width: int, kv_heads: int, group: int, blocks: int, places: int, splits: int) -> dict[str, int]:
    """What the kernel is compiled for."""
    return {
        "width": width,
        "kv_heads": kv_heads,
        "group": group,
        "blocks": blocks,
        "places": places,
        "splits": splits,
        "WIDTH": max(_NARROWEST, triton.next_power_of_2(width)),
        "GROUP": max(_NARROWEST, triton.next_power_of_2(group)),
    }
