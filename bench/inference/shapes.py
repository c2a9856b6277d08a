"""The AFMoE models that are measured, and the bytes that a decode step of each cannot avoid reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Bytes of one weight. Q8_0 stores 32 weights with one float16 scale; int8 by output channel has next to no scales.
WEIGHT_BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "q8_0": 34 / 32}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of an AFMoE model: three window layers, one full, one shared expert beside the routed ones.

    `config` holds the arguments of transformers' `AfmoeConfig` that differ from its defaults.
    """

    name: str
    summary: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_per_token: int
    expert_width: int
    dense_layers: int
    dense_width: int
    window: int
    tied: bool

    def config(self, max_positions: int = 16_384) -> dict[str, Any]:
        """Arguments for `AfmoeConfig`; scaled embeddings, because llama.cpp knows no AFMoE without them."""
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "num_experts": self.experts,
            "num_experts_per_tok": self.experts_per_token,
            "num_shared_experts": 1,
            "moe_intermediate_size": self.expert_width,
            "num_dense_layers": self.dense_layers,
            "intermediate_size": self.dense_width,
            "sliding_window": self.window,
            "global_attn_every_n_layers": 4,
            "max_position_embeddings": max_positions,
            "mup_enabled": True,
            "route_scale": 1.0,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }

    @property
    def moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.layers - self.dense_layers

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert: gate, up and down."""
        return 3 * self.hidden_size * self.expert_width

    @property
    def resident_parameters(self) -> int:
        """Parameters that every step reads, whatever the router says: all but routed experts and the embedding table.

        Norms and the experts' biases are left out: a thousandth.
        """
        queries = self.heads * self.head_dim
        attention = self.hidden_size * (3 * queries + 2 * self.kv_heads * self.head_dim)  # q, gate, output; k, v
        moe = self.hidden_size * self.experts + self.expert_parameters  # router, shared expert
        dense = 3 * self.hidden_size * self.dense_width
        head = self.hidden_size * self.vocab_size
        return self.layers * attention + self.moe_layers * moe + self.dense_layers * dense + head

    @property
    def parameters(self) -> int:
        """All parameters but the norms'."""
        embedding = 0 if self.tied else self.hidden_size * self.vocab_size  # else the head is counted already
        return self.resident_parameters + embedding + self.moe_layers * self.experts * self.expert_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token alone reads."""
        return self.resident_parameters + self.moe_layers * self.experts_per_token * self.expert_parameters

    def read_parameters(self, batch: int) -> float:
        """Parameters that a decode step over `batch` sequences reads, each once.

        Of the routed experts, the expected number that at least one sequence chooses if all are equally likely:
        ``E (1 - (1 - k/E)^batch)``. Random weights route nearly so.
        """
        chosen = self.experts * (1 - (1 - self.experts_per_token / self.experts) ** batch)
        return self.resident_parameters + self.moe_layers * chosen * self.expert_parameters

    def read_kv(self, batch: int, context: int) -> int:
        """Elements of keys and values that a decode step reads: windows no more than their width."""
        full = self.layers // 4
        tokens = full * context + (self.layers - full) * min(context, self.window)
        return 2 * batch * tokens * self.kv_heads * self.head_dim

    def decode_bytes(self, batch: int, context: int, weights: str, kv_element_bytes: float) -> float:
        """Bytes that a decode step cannot avoid reading, with `weights` one of `WEIGHT_BYTES`."""
        return self.read_parameters(batch) * WEIGHT_BYTES[weights] + self.read_kv(batch, context) * kv_element_bytes

    def prefill_bytes(self, batch: int, prompt: int, weights: str) -> float:
        """Bytes of the weights that a prompt of `batch` times `prompt` tokens reads if each is read only once."""
        return self.read_parameters(batch * prompt) * WEIGHT_BYTES[weights]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("A", "0.7 B parameters, 0.18 B active", 32_768, 1024, 16, 16, 4, 64, 64, 8, 192, 1, 2816, 512, False),
        Shape("S", "14 M parameters: overhead decides", 4096, 256, 8, 4, 2, 64, 16, 4, 96, 0, 512, 128, False),
    )
}
