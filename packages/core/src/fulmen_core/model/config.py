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
    num_experts: int = Field(0, ge=0)  # 0: every layer is dense
    num_experts_per_tok: int = Field(0, ge=0)
    moe_intermediate_size: int = Field(0, ge=0)
    num_shared_experts: int = Field(0, ge=0)
    norm_topk_prob: bool = True

    rope_theta: float = Field(10_000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    qk_norm: bool = True
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
