"""The configuration of a model, as `config.json` stores it: Hugging Face's names where they have one."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class BalanceConfig(BaseModel):
    """The three balance losses of the Yi-Lightning report (section 2.2) and the optional router z-loss.

    ``expert_groups`` is the number of expert-parallel groups, ``partitions`` the number of partitions in each group.
    ``token_set`` says which tokens B_g and B_p hold: see `fulmen_core.model.balance`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    switch_alpha: float = 1e-6
    group_alpha: float = 1e-4
    partition_alpha: float = 1e-3
    z_alpha: float = 0.0
    expert_groups: int = Field(4, ge=1)
    partitions: int = Field(2, ge=1)
    token_set: Literal["routed", "resident", "aggregate"] = "routed"


class RopeScaling(BaseModel):
    """How rotary frequencies are stretched beyond the context they were trained for: Hugging Face's names and formulas.

    "linear" divides every frequency by `factor`. "llama3" (Llama 3.1) divides those whose wavelength exceeds
    ``original / low_freq_factor`` tokens, keeps those below ``original / high_freq_factor``, and blends between. "yarn"
    (arXiv 2309.00071) blends by rotations within the original context, `beta_fast` to `beta_slow`, and multiplies
    cosines and sines by `attention_factor` (None: ``0.1 ln(factor) + 1``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rope_type: Literal["linear", "llama3", "yarn"]
    factor: float = Field(ge=1)
    original_max_position_embeddings: int | None = Field(None, gt=0)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    beta_fast: float = Field(32.0, gt=0)
    beta_slow: float = Field(1.0, gt=0)
    attention_factor: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rope_type != "linear" and self.original_max_position_embeddings is None:
            raise ValueError(f"rope scaling '{self.rope_type}' needs original_max_position_embeddings")
        if self.rope_type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must exceed low_freq_factor {self.low_freq_factor}"
            )
        return self


class ModelConfig(BaseModel):
    """Sizes and choices of a decoder. `LayerPlan.of` derives the layers from it; nothing looks at a model's name.

    Widths are in elements, windows and contexts in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Literal["fulmen"] = "fulmen"
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0, le=4096)  # bounded: the plan lists every layer
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)

    layer_pattern: str = Field("SSSF", pattern="^[SF]+$")  # repeated over the depth: S sliding window, F full
    sliding_window: int = Field(4096, gt=0)
    kv_share: int = Field(2, ge=1)  # this many consecutive full layers read one K and V

    intermediate_size: int = Field(gt=0)  # of dense FFNs
    num_dense_layers: int = Field(0, ge=0)  # leading layers with a dense FFN
    num_experts: int = Field(0, ge=0, le=65_536)  # 0: every layer is dense; bounded: some formats list every expert
    num_experts_per_tok: int = Field(0, ge=0)
    moe_intermediate_size: int = Field(0, ge=0)
    num_shared_experts: int = Field(0, ge=0)
    norm_topk_prob: bool = True
    router_score: Literal["softmax", "sigmoid"] = "softmax"  # turns a router's logits into scores
    router_bias: bool = False  # a float32 bias for each expert, added to the scores for the choice, not for the weights
    router_scale: float = Field(1.0, gt=0)  # multiplies the mixing weights, after any normalisation

    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    rope_layers: Literal["all", "window"] = "all"  # "window": full layers see no positions (NoPE)
    rms_norm_eps: float = Field(1e-6, gt=0)
    qk_norm: bool = True
    qk_norm_span: Literal["head", "projection"] = "head"  # one norm for each head, or one over all heads together
    clip_qkv: float | None = Field(None, gt=0)  # queries, keys and values are clipped to ±this: normed, not yet rotated
    attention_gate: bool = False  # heads' results times sigmoid(gate_proj(x)) before they are mixed
    post_norms: bool = False  # attention and FFN outputs are normed before they are added to the stream
    embedding_scale: float = Field(1.0, gt=0)  # multiplies the embeddings
    tie_word_embeddings: bool = True
    initializer_range: float | None = Field(None, gt=0)  # None: sqrt(2 / (5 * hidden_size))
    balance: BalanceConfig = BalanceConfig()

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embeddings need pairs")
        if self.num_experts:
            if not 0 < self.num_experts_per_tok <= self.num_experts:
                raise ValueError(
                    f"num_experts_per_tok {self.num_experts_per_tok} must lie between 1 and "
                    f"num_experts {self.num_experts}"
                )
            if self.moe_intermediate_size <= 0:
                raise ValueError("moe_intermediate_size must be set when num_experts is")
            if self.hidden_size % 8 or self.moe_intermediate_size % 8:
                raise ValueError(
                    f"hidden_size {self.hidden_size} and moe_intermediate_size {self.moe_intermediate_size} must be "
                    "multiples of 8: grouped matrix products need rows aligned to 16 bytes"
                )
            cells = self.balance.expert_groups * self.balance.partitions
            if self.num_experts % cells:
                raise ValueError(
                    f"num_experts {self.num_experts} does not divide into {self.balance.expert_groups} groups "
                    f"of {self.balance.partitions} partitions"
                )
        return self
