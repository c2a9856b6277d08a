"""The graph that is exported: prefill and decode of a layer plan in the operators that ONNX Runtime has kernels for.

In: a `Transformer`. Out: a module for `torch.onnx.export` alone; its contrib operators have no PyTorch kernel. It
reuses the model's norms, projections and dense networks, and replaces three things:

* attention and its cache by ``com.microsoft::GroupQueryAttention``: the caches are updated in place when input and
output are
  bound to one buffer, a window cache evicts by itself, and a borrowing layer reads the owner's caches by passing no new
  keys;
* routed experts by ``com.microsoft::MoE``, which computes the chosen experts only;
* rotary embedding by the attention operator's own, from a table of angles, where it takes heads of that width.

Operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md

Legend: B batch, T time, S longest sequence after the step, D model width, H heads, K kv heads, h head width, C cache
capacity, E experts, F expert width, N = B*T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen_core.errors import CapabilityError
from fulmen_core.model.block import Block
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.model.rope import rotary, rotate
from fulmen_core.model.transformer import Transformer

Caches = list[tuple[Tensor, Tensor]]

_DOMAIN = "com.microsoft"
_NEW_TOKENS = 16  # which operand of GroupQueryAttention `query_seqlens` is


#: The only value of each choice that the operators below can express; another would be exported as something else.
_FIXED = {
    "router_score": "softmax",
    "router_bias": False,
    "router_scale": 1.0,
    "rope_scaling": None,
    "rope_layers": "all",
    "qk_norm_span": "head",
    "clip_qkv": None,
    "attention_gate": False,
    "post_norms": False,
    "embedding_scale": 1.0,
}


def check_expressible(config: ModelConfig) -> None:
    """Refuse a model whose function this graph would change.

    Raises:
        CapabilityError: the config makes a choice that the graph has no operators for.
    """
    for name, value in _FIXED.items():
        if getattr(config, name) != value:
            raise CapabilityError(
                f"the onnx exporter cannot express {name} = {getattr(config, name)!r}",
                remedy="serve the checkpoint itself with the cpu backend",
            )


class Graph(nn.Module):
    """One step of every sequence of a batch, over caches that are inputs and outputs."""

    cos: Tensor
    sin: Tensor

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        config = model.config
        check_expressible(config)
        self.embed, self.norm, self.head_VD = model.embed, model.norm, model.head_weight_VD
        self.layers = nn.ModuleList(_Layer(config, model.block(layer.index)) for layer in model.plan)
        cos, sin = rotary(torch.arange(config.max_position_embeddings), config.head_dim, config.rope_theta)
        self.register_buffer("cos", cos.flatten(1))
        self.register_buffer("sin", sin.flatten(1))
        self.rotates_inside = _rotates_inside(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Caches) -> tuple[Tensor, Caches]:
        """Run one step.

        Args:
            input_ids: int64 [B, T].
            attention_mask: int64 [B, S]: ones for the tokens of each sequence, those of this step included, then zeros.
                If ``T = 1`` or ``B = 1``, sequences go on from wherever they are. If ``T = S`` all begin, and shorter
                ones are padded on the right.
            past_key_values: for each cache of the plan its keys and its values [B, K, C, h].

        Returns:
            Logits after the last token of each sequence, float32 [B, 1, V], and the caches after the step.
        """
        lengths_B = attention_mask.sum(1)
        new_B = lengths_B.clamp(max=input_ids.shape[1])
        longest = torch.full((), attention_mask.shape[1], dtype=torch.int32)
        position: tuple[Tensor, ...] = ((lengths_B - 1).to(torch.int32), longest)
        angles = None
        if self.rotates_inside:
            position = (*position, self.cos, self.sin)
        else:
            at_BT = (lengths_B - new_B)[:, None] + torch.arange(input_ids.shape[1])
            angles = self.cos[at_BT][:, :, None], self.sin[at_BT][:, :, None]
        shared = _Shared(position, new_B.to(torch.int32), angles)
        caches = list(past_key_values)
        x_BTD = self.embed(input_ids)
        for layer in self.layers:
            x_BTD = layer(x_BTD, shared, caches)
        last_B1D = (new_B - 1)[:, None, None].expand(-1, 1, x_BTD.shape[2])
        return F.linear(self.norm(x_BTD.gather(1, last_B1D)), self.head_VD), caches


class _Shared(NamedTuple):
    """What the layers share.

    Attributes:
        position: lengths after the step less one [B], the longest of them, and the table of angles: operands of
            attention. new_B: how many of each sequence's T tokens are no padding.
        angles: cosines and sines of each token [B, T, 1, h/2], where the attention operator does not rotate.
    """

    position: tuple[Tensor, ...]
    new_B: Tensor
    angles: tuple[Tensor, Tensor] | None


class _Layer(nn.Module):
    def __init__(self, config: ModelConfig, block: Block) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = block.attention_norm, block.ffn_norm
        self.attention = _Attention(config, block)
        self.ffn = _Mixture(block.ffn) if isinstance(block.ffn, MixtureFeedForward) else block.ffn

    def forward(self, x_BTD: Tensor, shared: _Shared, caches: Caches) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), shared, caches)
        y_BTD: Tensor = x_BTD + self.ffn(self.ffn_norm(x_BTD))
        return y_BTD


class _Attention(nn.Module):
    """Projections and norms of the layer, then one operator. Replaces the layer's entry of `caches`, if it owns one."""

    def __init__(self, config: ModelConfig, block: Block) -> None:
        super().__init__()
        self.source, self.layer = block.attention, block.layer
        self.kv_width = config.num_key_value_heads * config.head_dim
        self.attributes: dict[str, Any] = {
            "num_heads": config.num_attention_heads,
            "kv_num_heads": config.num_key_value_heads,
            "do_rotary": int(_rotates_inside(config)),
        }
        if block.layer.window is not None:
            self.attributes |= {"local_window_size": block.layer.window, "sliding_window_cache": 1}

    def forward(self, x_BTD: Tensor, shared: _Shared, caches: Caches) -> Tensor:
        source = self.source
        q_BTHh = self._prepare(source.q_proj(x_BTD), source.q_norm, shared)
        operands: list[Tensor | None] = [*caches[self.layer.cache], *shared.position]
        name = f"{_DOMAIN}::GroupQueryAttention"
        if source.kv_proj is None:
            # Keys of length zero: the operator then only reads the cache, which the owner's layer has already updated.
            k = v = q_BTHh[:, :0, : self.kv_width]
            o_BTHh = torch.onnx.ops.symbolic(
                name, (q_BTHh, k, v, *operands), self.attributes, dtype=q_BTHh.dtype, shape=q_BTHh.shape, version=1
            )
        else:
            k, v = source.kv_proj(x_BTD).split(self.kv_width, dim=2)
            k = self._prepare(k, source.k_norm, shared)
            if self.layer.window is not None:
                # A window cache must be told of padding, which would evict tokens; the operands between are not used.
                operands += [None] * (_NEW_TOKENS - 3 - len(operands)) + [shared.new_B]
            o_BTHh, k_BKCh, v_BKCh = torch.onnx.ops.symbolic_multi_out(
                name,
                (q_BTHh, k, v, *operands),
                self.attributes,
                dtypes=(torch.float32,) * 3,
                shapes=(q_BTHh.shape, *(cache.shape for cache in caches[self.layer.cache])),
                version=1,
            )
            caches[self.layer.cache] = k_BKCh, v_BKCh
        mixed_BTD: Tensor = source.o_proj(o_BTHh)
        return mixed_BTD

    def _prepare(self, x_BTHh: Tensor, norm: nn.Module | None, shared: _Shared) -> Tensor:
        """Normalise and, unless the operator does it, rotate queries or keys with their heads side by side."""
        if norm is None and shared.angles is None:
            return x_BTHh
        x_BTHh = x_BTHh.view(*x_BTHh.shape[:2], -1, self.source.head_dim)
        if norm is not None:
            x_BTHh = norm(x_BTHh)
        if shared.angles is not None:
            x_BTHh = rotate(x_BTHh, *shared.angles)
        return x_BTHh.flatten(2)


def _rotates_inside(config: ModelConfig) -> bool:
    """Whether the attention operator can rotate: ONNX Runtime 1.32 asks for heads of a multiple of 16."""
    return config.head_dim % 16 == 0


class _Mixture(nn.Module):
    """Routed experts as one operator that takes the router's logits, and the shared experts beside it."""

    gate_up_EGD: Tensor
    down_EDF: Tensor

    def __init__(self, source: MixtureFeedForward) -> None:
        super().__init__()
        self.router_ED, self.shared = source.router.weight, source.shared
        gate_EFD, up_EFD = source.experts.gate_up_EGD.detach().chunk(2, dim=1)
        # The CPU kernel wants the rows of gate and up interleaved, and the second product's weight as [E, D, F].
        self.register_buffer("gate_up_EGD", torch.stack((gate_EFD, up_EFD), dim=2).flatten(1, 2))
        self.register_buffer("down_EDF", source.experts.down_EFD.detach().transpose(1, 2).contiguous())
        self.attributes: dict[str, Any] = {
            "k": source.router.top_k,
            "normalize_routing_weights": int(source.router.normalise),
            "activation_type": "swiglu",
            "swiglu_fusion": 1,
            "activation_alpha": 1.0,
            "activation_beta": 0.0,
        }

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, 1)
        logits_NE = F.linear(x_ND, self.router_ED)
        y_ND: Tensor = torch.onnx.ops.symbolic(
            f"{_DOMAIN}::MoE",
            (x_ND, logits_NE, self.gate_up_EGD, None, self.down_EDF),
            self.attributes,
            dtype=x_ND.dtype,
            shape=x_ND.shape,
            version=1,
        )
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        return y_ND.view_as(x_BTD)
