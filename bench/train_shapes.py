"""The models that training is measured on, and what a step of them costs in floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.layer_plan import LayerPlan


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and the rows of a step.

    Attributes:
        config: of the mixture of experts.
        rows, tokens: of a step.
    """

    name: str
    config: ModelConfig
    rows: int
    tokens: int

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.tokens


def _config(
    *, vocabulary: int, width: int, layers: int, heads: int, kv_heads: int, experts: int, top_k: int, inner: int
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=2048,
        layer_pattern="SSSF",
        sliding_window=128,
        intermediate_size=top_k * inner,
        num_experts=experts,
        num_experts_per_tok=top_k,
        moe_intermediate_size=inner,
        balance=BalanceConfig(expert_groups=4, partitions=2),
    )


def shapes() -> dict[str, Shape]:
    """All shapes by name: the total number of parameters, and what is special. `toy` is for tests, `1B` for GPUs."""
    toy = _config(vocabulary=64, width=32, layers=4, heads=2, kv_heads=1, experts=8, top_k=2, inner=16)
    small = _config(vocabulary=4096, width=256, layers=8, heads=4, kv_heads=2, experts=16, top_k=4, inner=96)
    middle = _config(vocabulary=8192, width=384, layers=8, heads=6, kv_heads=2, experts=32, top_k=4, inner=96)
    fine = _config(vocabulary=8192, width=384, layers=8, heads=6, kv_heads=2, experts=64, top_k=8, inner=48)
    billion = _config(vocabulary=32768, width=1536, layers=16, heads=24, kv_heads=4, experts=32, top_k=4, inner=384)
    large = _config(vocabulary=8192, width=1024, layers=8, heads=16, kv_heads=4, experts=16, top_k=4, inner=256)
    return {
        shape.name: shape
        for shape in (
            Shape("toy", toy, 2, 48),
            Shape("12M", small, 8, 512),
            Shape("34M", middle, 8, 512),
            Shape("34M-fine", fine, 8, 512),
            Shape("128M", large, 8, 512),
            Shape("1B", billion, 8, 2048),
        )
    }


def dense_of(shape: Shape) -> ModelConfig:
    """The dense model with the same active parameters: every layer one FFN as wide as the selected experts together."""
    return shape.config.model_copy(update={"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0})


def active_matrices(config: ModelConfig) -> int:
    """Parameters that one token is multiplied with: those of all products, the head included, the embedding not."""
    attention = router = ffn = 0
    width, head = config.hidden_size, config.head_dim
    for layer in LayerPlan.of(config):
        attention += 2 * width * config.num_attention_heads * head
        attention += 2 * width * config.num_key_value_heads * head * layer.owns_kv
        if layer.ffn == "moe":
            router += width * config.num_experts
            ffn += 3 * width * config.num_experts_per_tok * config.moe_intermediate_size
        else:
            ffn += 3 * width * config.intermediate_size
    return attention + router + ffn + width * config.vocab_size


def step_flops(config: ModelConfig, rows: int, tokens: int) -> float:
    """Floating-point operations that one training step needs: nothing that is computed twice or masked counts.

    Per token 6 for each active matrix parameter (2 forward, 4 backward), and for attention 12 * heads * head_dim for
    each key that a query sees: 4 forward (scores, mixing), 8 backward. Keys are those of the causal mask and the
    window; what documents hide is not taken off.
    """
    keys = 0.0
    for layer in LayerPlan.of(config):
        window = min(layer.window or tokens, tokens)
        keys += window * (tokens - window) + window * (window + 1) / 2
    attention = 12 * config.num_attention_heads * config.head_dim * keys * rows
    return 6.0 * active_matrices(config) * rows * tokens + attention
