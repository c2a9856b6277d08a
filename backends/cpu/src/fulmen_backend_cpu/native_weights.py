"""A model's tensors into the native kernels' layout, block by block, so that a model never lies in memory twice.

Legend: D model width, H heads, K kv heads, h head width, E experts, F expert width, G = 2F.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fulmen_backend_cpu.native_library import Format, LayerShape, MatrixRole, Shape, VectorRole
from fulmen_core.model.block import Block
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import DenseFeedForward, MixtureFeedForward
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec
from fulmen_core.model.norm import RMSNorm
from fulmen_core.model.rope import rotary
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import CacheLayout, EngineLimits

#: Sizes of fixed arrays in the kernels.
MOST_EXPERTS, WIDEST_HEAD = 1024, 512


def unsupported(config: ModelConfig) -> str:
    """Why the kernels cannot run a model of this config; empty if they can."""
    if config.num_experts > MOST_EXPERTS:
        return f"{config.num_experts} experts are more than {MOST_EXPERTS}"
    if config.head_dim > WIDEST_HEAD:
        return f"heads of {config.head_dim} are wider than {WIDEST_HEAD}"
    return ""


def make_shape(config: ModelConfig, limits: EngineLimits, layout: CacheLayout, weights: Format, kv: Format) -> Shape:
    """The numbers that the kernels need of a config."""
    plan = LayerPlan.of(config)
    return Shape(
        vocab=config.vocab_size,
        width=config.hidden_size,
        layers=len(plan),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        experts=config.num_experts,
        experts_per_token=config.num_experts_per_tok,
        expert_width=config.moe_intermediate_size,
        max_sequences=limits.max_sequences,
        max_context=limits.max_context,
        max_step_tokens=limits.max_step_tokens,
        caches=len(plan.cache_owners),
        slots=layout.slots,
        pages=layout.pages,
        page_tokens=layout.page_tokens,
        window_slack=layout.rewind,
        adapters=limits.adapters,
        adapter_rank=limits.adapter_rank,
        weights=weights,
        kv=kv,
        tied=config.tie_word_embeddings,
        qk_norm_whole=config.qk_norm_span == "projection",
        attention_gate=config.attention_gate,
        sigmoid_router=config.router_score == "sigmoid",
        normalise_weights=config.norm_topk_prob,
        eps=config.rms_norm_eps,
        router_scale=config.router_scale,
        embedding_scale=config.embedding_scale,
        clip_qkv=config.clip_qkv or 0.0,
    )


def make_layer_shapes(config: ModelConfig) -> ctypes.Array[LayerShape]:
    """The layer plan as the kernels read it."""
    plan = LayerPlan.of(config)
    shapes = (LayerShape * len(plan))()
    for layer in plan:
        mixture = layer.ffn == "moe"
        shapes[layer.index] = LayerShape(
            window=layer.window or 0,
            cache=layer.cache,
            owns_kv=layer.owns_kv,
            rotates=config.rope_layers == "all" or layer.window is not None,
            mixture=mixture,
            dense_width=config.num_shared_experts * config.moe_intermediate_size
            if mixture
            else config.intermediate_size,
        )
    return shapes


class WeightPacker:
    """Hands the tensors of a `Transformer` to a native model and frees them on the way: the module is used up.

    Args:
        library: the loaded kernels.
        handle: a model of `fulmen_new`.
        check: raises what the kernels complain of, given a function's result.
    """

    def __init__(self, library: ctypes.CDLL, handle: int, check: Callable[[int], None]) -> None:
        self._library, self._handle, self._check = library, handle, check

    def pack(self, model: Transformer, max_context: int) -> None:
        """Pack everything; tables of positions are made for `max_context` tokens."""
        config = model.config
        for layer in model.plan:
            self._block(config, layer, model.block(layer.index))
            model.blocks[layer.index] = nn.Identity()
        self._norm(VectorRole.NORM, 0, model.norm)
        self._matrix(MatrixRole.HEAD, 0, model.head_weight_VD)
        if model.head is not None:
            weight_VD = _plain(model.embed.weight)
            self._check(
                self._library.fulmen_set_embedding(
                    self._handle, weight_VD.data_ptr(), _format(weight_VD), weight_VD.nbytes
                )
            )
        cosines, sines = rotary(
            torch.arange(max_context), config.head_dim, config.rope_theta, torch.float32, config.rope_scaling
        )
        self._vector(VectorRole.COSINES, 0, cosines)
        self._vector(VectorRole.SINES, 0, sines)

    def _block(self, config: ModelConfig, layer: LayerSpec, block: Block) -> None:
        attention, index = block.attention, layer.index
        parts = [attention.q_proj.weight]
        if attention.kv_proj is not None:
            parts.append(attention.kv_proj.weight)
        if attention.gate_proj is not None:
            parts.append(attention.gate_proj.weight)
        self._matrix(MatrixRole.QKV, index, torch.cat(parts))
        self._matrix(MatrixRole.OUT, index, attention.o_proj.weight)
        norms = {
            VectorRole.ATTENTION_NORM: block.attention_norm,
            VectorRole.FFN_NORM: block.ffn_norm,
            VectorRole.Q_NORM: attention.q_norm,
            VectorRole.K_NORM: attention.k_norm,
            VectorRole.ATTENTION_POST_NORM: block.attention_post_norm,
            VectorRole.FFN_POST_NORM: block.ffn_post_norm,
        }
        for role, norm in norms.items():
            if norm is not None:
                self._norm(role, index, norm)
        if isinstance(block.ffn, MixtureFeedForward):
            self._mixture(config, index, block.ffn)
        else:
            self._dense(index, block.ffn)

    def _mixture(self, config: ModelConfig, index: int, ffn: MixtureFeedForward) -> None:
        self._matrix(MatrixRole.ROUTER, index, ffn.router.weight)
        if ffn.router.bias is not None:
            self._vector(VectorRole.ROUTER_BIAS, index, ffn.router.bias)
        rows = alternating_rows(config.moe_intermediate_size)
        for expert in range(config.num_experts):
            self._matrix(MatrixRole.EXPERT_GATE_UP, index, ffn.experts.gate_up_EGD[expert], expert, rows)
            self._matrix(MatrixRole.EXPERT_DOWN, index, ffn.experts.down_EFD[expert].T, expert)
        if ffn.shared is not None:
            self._dense(index, ffn.shared)

    def _dense(self, index: int, ffn: DenseFeedForward) -> None:
        rows = alternating_rows(ffn.down.in_features)
        self._matrix(MatrixRole.DENSE_GATE_UP, index, ffn.gate_up.weight, rows=rows)
        self._matrix(MatrixRole.DENSE_DOWN, index, ffn.down.weight)

    def _matrix(
        self, role: MatrixRole, layer: int, weight: Tensor, expert: int = 0, rows: Tensor | None = None
    ) -> None:
        """Pack a weight [outputs, inputs] of any strides; `rows` picks and orders outputs, -1 is filler."""
        weight = weight.detach()
        if weight.dtype not in (torch.float32, torch.bfloat16):
            weight = weight.float()
        outputs = len(weight) if rows is None else len(rows)
        self._check(
            self._library.fulmen_set_matrix(
                self._handle,
                role,
                layer,
                expert,
                weight.data_ptr(),
                _format(weight),
                weight.stride(0),
                weight.stride(1),
                None if rows is None else rows.data_ptr(),
                outputs,
                weight.shape[1],
            )
        )

    def _norm(self, role: VectorRole, layer: int, norm: RMSNorm) -> None:
        self._vector(role, layer, norm.weight)

    def _vector(self, role: VectorRole, layer: int, values: Tensor) -> None:
        values = values.detach().float().contiguous()
        self._check(self._library.fulmen_set_vector(self._handle, role, layer, values.data_ptr(), values.numel()))


def _plain(weight: Tensor) -> Tensor:
    weight = weight.detach().contiguous()
    return weight if weight.dtype in (torch.float32, torch.bfloat16) else weight.float()


def _format(weight: Tensor) -> Format:
    return Format.BFLOAT16 if weight.dtype == torch.bfloat16 else Format.FLOAT32


def alternating_rows(inner: int) -> Tensor:
    """Rows of a [2 * inner, D] weight, gate first, so that 16 of gate and 16 of up alternate; -1 fills up."""
    lane = torch.arange(-(-inner // 16) * 16).view(-1, 16)
    gate = torch.where(lane < inner, lane, -1)
    up = torch.where(lane < inner, lane + inner, -1)
    return torch.stack((gate, up), dim=1).flatten().to(torch.int32)
