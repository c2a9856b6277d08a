"""Grouped-query attention over a window or the whole document, with keys and values that a layer may borrow.

Legend: B batch, T queries, S keys, D model width, H heads, K kv heads, G = H/K query heads a kv head, h head
width, w window, A a projection's width: H*h or K*h.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerSpec
from fulmen_core.model.masks import ChunkedMask, FirstKeys, Mask, last_chunks, paired_chunks
from fulmen_core.model.norm import RMSNorm
from fulmen_core.model.precision import product_dtype
from fulmen_core.model.rope import rotate

_EXPLICIT_CHUNK = 256  # largest chunk whose scores are kept


def attend(q_BTHh: Tensor, k_BSKh: Tensor, v_BSKh: Tensor, mask: Mask) -> Tensor:
    """Softmax attention, scaled by ``1/sqrt(h)``; query head i reads kv head ``i // (H/K)``. Returns [B, T, H, h].

    Args:
        mask: None is causal and needs S = T; a bool tensor that broadcasts to [B, H, T, S], True where seen (each query
            must see a key); or a `ChunkedMask` or `FirstKeys` with S = T.
    """
    if isinstance(mask, FirstKeys):
        mask = mask.seen()
    if isinstance(mask, ChunkedMask):
        return _attend_chunked(q_BTHh, k_BSKh, v_BSKh, mask)
    o_BHTh = F.scaled_dot_product_attention(
        q_BTHh.transpose(1, 2),
        k_BSKh.transpose(1, 2),
        v_BSKh.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q_BTHh.shape[2] != k_BSKh.shape[2],
    )
    return o_BHTh.transpose(1, 2)


def _attend_chunked(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, mask: ChunkedMask) -> Tensor:
    batch, tokens = q_BTHh.shape[:2]
    chunk = mask.chunk
    inner = _attend_explicitly if _explicit_is_faster(q_BTHh, chunk) else attend
    first = inner(q_BTHh[:, :chunk], k_BTKh[:, :chunk], v_BTKh[:, :chunk], mask.first)
    if tokens % chunk:
        filler = (0, 0, 0, 0, 0, -tokens % chunk)
        q_BTHh, k_BTKh, v_BTKh = F.pad(q_BTHh, filler), F.pad(k_BTKh, filler), F.pad(v_BTKh, filler)
    q, k, v = last_chunks(q_BTHh, chunk), paired_chunks(k_BTKh, chunk), paired_chunks(v_BTKh, chunk)
    rest = torch.unflatten(inner(q, k, v, mask.rest), 0, (batch, -1)).flatten(1, 2)
    return torch.cat((first, rest[:, : tokens - chunk]), dim=1)


def _attend_explicitly(q_BTHh: Tensor, k_BSKh: Tensor, v_BSKh: Tensor, mask: Tensor) -> Tensor:
    """`attend` as two batched products around a float32 softmax, for scores that are small enough to keep."""
    dtype = product_dtype(q_BTHh)
    batch, queries, heads, width = q_BTHh.shape
    keys, kv_heads = k_BSKh.shape[1:3]
    grouped = (batch * kv_heads, heads // kv_heads * queries)
    q_BTKGh = torch.unflatten((q_BTHh * width**-0.5).to(dtype), 2, (kv_heads, -1))
    q = q_BTKGh.permute(0, 2, 3, 1, 4).reshape(*grouped, width)
    k = k_BSKh.to(dtype).transpose(1, 2).reshape(-1, keys, width)
    v = v_BSKh.to(dtype).transpose(1, 2).reshape(-1, keys, width)
    scores_BHTS = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, queries, keys)
    weights_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(dtype)
    return torch.bmm(weights_BHTS.view(*grouped, keys), v).view(batch, heads, queries, width).transpose(1, 2)


def _explicit_is_faster(q_BTHh: Tensor, chunk: int) -> bool:
    # The CPU's fused attention computes 16-bit products slower than 32-bit ones; plain products use the matrix units.
    return q_BTHh.device.type == "cpu" and chunk <= _EXPLICIT_CHUNK and product_dtype(q_BTHh).itemsize == 2


NormAndRotate = Callable[[Tensor, RMSNorm | None, Tensor, Tensor], Tensor]


def norm_and_rotate(x_BTHh: Tensor, norm: RMSNorm | None, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads [B, T, H, h], each normalised if there is a norm, then rotated."""
    return rotate(x_BTHh if norm is None else norm(x_BTHh), cos, sin)


class Attention(nn.Module):
    """The projections of one layer. A layer that borrows its keys and values owns no weights for them.

    Callers compose `project_q`, `project_kv`, `attend` and `output`, so that a runner can keep K and V where it likes.
    `kv_proj` holds the rows of all key heads, then those of all value heads. Queries and keys are normalised (each head
    alone, or all together: `qk_norm_span`), clipped (`clip_qkv`), and rotated unless the layer sees no positions.
    """

    def __init__(self, config: ModelConfig, layer: LayerSpec) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.gate_proj: nn.Linear | None = None
        if config.attention_gate:
            self.gate_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.rotates = config.rope_layers == "all" or layer.window is not None
        self.clip = config.clip_qkv
        self.norm_and_rotate: NormAndRotate = norm_and_rotate
        self.norm_spans_heads = config.qk_norm_span == "projection"
        self.q_norm = self._head_norm(config, self.heads)
        self.kv_proj: nn.Linear | None = None
        self.k_norm: RMSNorm | None = None
        if layer.owns_kv:
            self.kv_proj = nn.Linear(config.hidden_size, 2 * self.kv_heads * self.head_dim, bias=False)
            self.k_norm = self._head_norm(config, self.kv_heads)

    def _head_norm(self, config: ModelConfig, heads: int) -> RMSNorm | None:
        if not config.qk_norm:
            return None
        return RMSNorm(heads * self.head_dim if self.norm_spans_heads else self.head_dim, config.rms_norm_eps)

    def project_q(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries [B, T, H, h], normalised and rotated, of the normalised input; `cos`, `sin` from `rope.rotary`."""
        return self._place(self.q_proj(x_BTD), self.q_norm, cos, sin)

    def project_kv(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (normalised and rotated) and values, both [B, T, K, h]. Only for layers that own them."""
        if self.kv_proj is None:
            raise TypeError("a layer that borrows its keys and values cannot project them")
        k_BTA, v_BTA = self.kv_proj(x_BTD).chunk(2, dim=-1)
        v_BTKh = self._clip(torch.unflatten(v_BTA, -1, (self.kv_heads, self.head_dim)))
        return self._place(k_BTA, self.k_norm, cos, sin), v_BTKh

    def output(self, o_BTHh: Tensor, x_BTD: Tensor) -> Tensor:
        """Mix the heads' results back into [B, T, D], gated by the normalised input if the model has gates."""
        o_BTA = o_BTHh.flatten(-2)
        if self.gate_proj is not None:
            o_BTA = o_BTA * torch.sigmoid(self.gate_proj(x_BTD))
        mixed: Tensor = self.o_proj(o_BTA)
        return mixed

    def _place(self, x_BTA: Tensor, norm: RMSNorm | None, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries or keys of a projection's rows: into heads, normalised, clipped and rotated."""
        if norm is not None and self.norm_spans_heads:
            x_BTA = norm(x_BTA)
        x_BTHh = torch.unflatten(x_BTA, -1, (-1, self.head_dim))
        head_norm = None if self.norm_spans_heads else norm
        if self.rotates and self.clip is None:
            return self.norm_and_rotate(x_BTHh, head_norm, cos, sin)
        if head_norm is not None:
            x_BTHh = head_norm(x_BTHh)
        x_BTHh = self._clip(x_BTHh)
        return rotate(x_BTHh, cos, sin) if self.rotates else x_BTHh

    def _clip(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)
