"""Attention as plain batched products around the compiled softmax: scores exist for blocks of queries only.

A window layer multiplies blocks of 64 queries with the keys that any of them may see, all blocks at once; a full layer
multiplies blocks of queries one after the other with all keys up to their last. The CPU's fused attention computes
16-bit products slower than 32-bit ones; plain products use the matrix units.

Legend: B batch, T tokens, H heads, K kv heads, G = H/K query heads a kv head, h head width, n blocks, b queries of a
block, S keys of a block, X = B*K*n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_backend_cpu.training_kernels import LANES, TrainingKernels, load_kernels
from fulmen_core.model.masks import FirstKeys

_WINDOW_BLOCK = 64
_FULL_BLOCK = 128
_KEPT_TOKENS = 1024  # rows of up to so many tokens keep a full layer's weights; longer ones compute them again


def attend_by_products(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: FirstKeys) -> Tensor:
    """Attention [B, T, H, h] of bfloat16 or float32 tensors of one dtype, h a multiple of `LANES`."""
    return _apply(q_BTHh, k_BTKh, v_BTKh, mask.first_BT, mask.window)


class _Shape(NamedTuple):
    batch: int
    tokens: int
    heads: int
    kv_heads: int
    width: int

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def scale(self) -> float:
        return float(self.width**-0.5)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, first_BT: Tensor, window: int | None
    ) -> Tensor:
        shape = _Shape(*q_BTHh.shape[:3], *k_BTKh.shape[2:])
        ctx.shape, ctx.window = shape, window
        if window is None:
            o_BTHh, weights = _full_forward(shape, q_BTHh, k_BTKh, v_BTKh, first_BT)
        else:
            o_BTHh, weights = _window_forward(shape, q_BTHh, k_BTKh, v_BTKh, first_BT, window)
        ctx.save_for_backward(q_BTHh, k_BTKh, v_BTKh, first_BT, *weights)
        return o_BTHh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTHh: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_BTHh, k_BTKh, v_BTKh, first_BT, *weights = ctx.saved_tensors
        if ctx.window is None:
            grads = _full_backward(ctx.shape, grad_BTHh, q_BTHh, k_BTKh, v_BTKh, first_BT, weights)
        else:
            grads = _window_backward(ctx.shape, grad_BTHh, q_BTHh, k_BTKh, v_BTKh, weights[0], ctx.window)
        return *grads, None, None


_apply: Callable[..., Tensor] = _Attend.apply


def _low(x: Tensor) -> int:
    return int(x.dtype is torch.bfloat16)


def _soften(
    kernels: TrainingKernels, scores: Tensor, shape: _Shape, first_BT: Tensor, blocks: int, query: int, key: int
) -> None:
    """Scores of blocks of queries, [B*K*n, b*G, S], to weights in place; `query` and `key` are the first block's."""
    items, rows, keys = scores.shape
    stride = shape.tokens if len(first_BT) > 1 else 0
    kernels.call(
        "softmax_forward",
        _low(scores),
        *(scores, first_BT, stride, shape.kv_heads, blocks, rows // shape.group, shape.group),
        *(query, key, shape.tokens, keys, items * rows, shape.scale),
    )


def _soften_backward(kernels: TrainingKernels, weights: Tensor, grads: Tensor, scale: float) -> None:
    items, rows, keys = weights.shape
    kernels.call("softmax_backward", _low(weights), weights, grads, items * rows, keys, scale)


def adjacent(x_BTHh: Tensor) -> Tensor:
    """`x_BTHh` with tokens at one distance and heads side by side, copied if it is laid out otherwise."""
    _, tokens, _, width = x_BTHh.shape
    stride = x_BTHh.stride()
    return x_BTHh if stride[2:] == (width, 1) and stride[0] == tokens * stride[1] else x_BTHh.contiguous()


def _rows(x_BTHh: Tensor, kv_heads: int, queries: int) -> Tensor:
    """Heads by the kv head that they read, [B*K, queries*G, h] with a token's heads adjacent; zeros behind T."""
    x_BTHh = adjacent(x_BTHh)
    batch, tokens, heads, width = x_BTHh.shape
    group = heads // kv_heads
    rows = x_BTHh.new_empty(batch * kv_heads, queries * group, width)
    load_kernels().call(
        "pack_heads", _low(rows), x_BTHh, batch, tokens, kv_heads, group, width, x_BTHh.stride(1), queries, rows
    )
    return rows


def _heads(rows: Tensor, shape: _Shape, group: int) -> Tensor:
    """The inverse of `_rows`, filler dropped: [B, T, K*group, h]."""
    queries = rows.numel() // (shape.batch * shape.kv_heads * group * shape.width)
    x_BTHh = rows.new_empty(shape.batch, shape.tokens, shape.kv_heads * group, shape.width)
    load_kernels().call(
        *("unpack_heads", _low(rows), rows, shape.batch, shape.tokens, shape.kv_heads, group, shape.width),
        *(queries, x_BTHh),
    )
    return x_BTHh


class _Windows(NamedTuple):
    """Sizes of a window layer's blocks: `blocks` of `block` queries, each over the `keys` up to its last query.

    `keys` is a multiple of `block`.
    """

    block: int
    keys: int
    blocks: int

    @classmethod
    def of(cls, tokens: int, window: int) -> _Windows:
        block = min(_WINDOW_BLOCK, -(-window // LANES) * LANES)
        return cls(block, -(-(window - 1 + block) // block) * block, -(-tokens // block))

    def cut(self, x_BTKh: Tensor) -> Tensor:
        """The keys (or values) of all blocks [X, S, h]; zeros before the first and behind the last token."""
        x_BTKh = adjacent(x_BTKh)
        batch, tokens, kv_heads, width = x_BTKh.shape
        cut_XSh = x_BTKh.new_empty(batch * kv_heads * self.blocks, self.keys, width)
        load_kernels().call(
            *("cut_windows", _low(cut_XSh), x_BTKh, batch, tokens, kv_heads, width, x_BTKh.stride(1)),
            *(self.blocks, self.block, self.keys, cut_XSh),
        )
        return cut_XSh

    def fold(self, grads_XSh: Tensor, shape: _Shape) -> Tensor:
        """The inverse of `cut` for gradients, [B, T, K, h]: what several blocks say of a key is added in float32."""
        total = grads_XSh.new_empty(shape.batch, shape.tokens, shape.kv_heads, shape.width)
        load_kernels().call(
            *("fold_windows", _low(total), grads_XSh, shape.batch, shape.tokens, shape.kv_heads, shape.width),
            *(self.blocks, self.block, self.keys, total),
        )
        return total


def _window_forward(
    shape: _Shape, q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, first_BT: Tensor, window: int
) -> tuple[Tensor, list[Tensor]]:
    sizes = _Windows.of(shape.tokens, window)
    q_XRh = _rows(q_BTHh, shape.kv_heads, sizes.blocks * sizes.block).view(-1, sizes.block * shape.group, shape.width)
    weights_XRS = torch.bmm(q_XRh, sizes.cut(k_BTKh).transpose(1, 2))
    _soften(load_kernels(), weights_XRS, shape, first_BT, sizes.blocks, 0, sizes.block - sizes.keys)
    return _heads(torch.bmm(weights_XRS, sizes.cut(v_BTKh)), shape, shape.group), [weights_XRS]


def _window_backward(
    shape: _Shape, grad_BTHh: Tensor, q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, weights_XRS: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = _Windows.of(shape.tokens, window)
    queries = sizes.blocks * sizes.block
    grad_XRh = _rows(grad_BTHh, shape.kv_heads, queries).view(-1, sizes.block * shape.group, shape.width)
    q_XRh = _rows(q_BTHh, shape.kv_heads, queries).view(grad_XRh.shape)
    grad_v_XSh = torch.bmm(weights_XRS.transpose(1, 2), grad_XRh)
    grads_XRS = torch.bmm(grad_XRh, sizes.cut(v_BTKh).transpose(1, 2))
    _soften_backward(load_kernels(), weights_XRS, grads_XRS, shape.scale)
    grad_q = _heads(torch.bmm(grads_XRS, sizes.cut(k_BTKh)), shape, shape.group)
    grad_k_XSh = torch.bmm(grads_XRS.transpose(1, 2), q_XRh)
    return grad_q, sizes.fold(grad_k_XSh, shape), sizes.fold(grad_v_XSh, shape)


def _full_blocks(tokens: int) -> list[tuple[int, int]]:
    """First and last (excluded) query of each block; the last is also where its keys end, a multiple of LANES."""
    end = -(-tokens // LANES) * LANES
    return [(start, min(start + _FULL_BLOCK, end)) for start in range(0, end, _FULL_BLOCK)]


def _full_weights(shape: _Shape, q_ZRh: Tensor, k_ZSh: Tensor, first_BT: Tensor, start: int, end: int) -> Tensor:
    scores = torch.bmm(q_ZRh[:, start * shape.group : end * shape.group], k_ZSh[:, :end].transpose(1, 2))
    _soften(load_kernels(), scores, shape, first_BT, 1, start, 0)
    return scores


def _full_forward(
    shape: _Shape, q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, first_BT: Tensor
) -> tuple[Tensor, list[Tensor]]:
    blocks = _full_blocks(shape.tokens)
    q, k, v = (_rows(x, shape.kv_heads, blocks[-1][1]) for x in (q_BTHh, k_BTKh, v_BTKh))
    kept, parts = [], []
    for start, end in blocks:
        weights = _full_weights(shape, q, k, first_BT, start, end)
        parts.append(torch.bmm(weights, v[:, :end]))
        if shape.tokens <= _KEPT_TOKENS:
            kept.append(weights)
    return _heads(torch.cat(parts, dim=1), shape, shape.group), kept


def _full_backward(
    shape: _Shape,
    grad_BTHh: Tensor,
    q_BTHh: Tensor,
    k_BTKh: Tensor,
    v_BTKh: Tensor,
    first_BT: Tensor,
    kept: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    blocks, group = _full_blocks(shape.tokens), shape.group
    q, k, v, grad = (_rows(x, shape.kv_heads, blocks[-1][1]) for x in (q_BTHh, k_BTKh, v_BTKh, grad_BTHh))
    grad_q = []
    grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
    for index, (start, end) in enumerate(blocks):
        rows = slice(start * group, end * group)
        weights = kept[index] if kept else _full_weights(shape, q, k, first_BT, start, end)
        grad_v[:, :end] += torch.bmm(weights.transpose(1, 2), grad[:, rows])
        grads = torch.bmm(grad[:, rows], v[:, :end].transpose(1, 2))
        _soften_backward(load_kernels(), weights, grads, shape.scale)
        grad_q.append(torch.bmm(grads, k[:, :end]))
        grad_k[:, :end] += torch.bmm(grads.transpose(1, 2), q[:, rows])
    return (
        _heads(torch.cat(grad_q, dim=1), shape, group),
        _heads(grad_k.to(k.dtype), shape, 1),
        _heads(grad_v.to(v.dtype), shape, 1),
    )
