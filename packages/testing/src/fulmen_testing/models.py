"""Small random models: what backends are held against. All are seeded, wide enough in their weights that attention and
routing are far from uniform, and so narrow that a claim takes milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
from fulmen_core.model.transformer import Transformer

VOCABULARY = 61
#: Tokens: beyond two pages of any usual size.
CONTEXT = 288

#: Yi-Lightning's plan at toy size: windows and fulls in turn, the second full reading the first one's keys and values,
#: one dense layer, then experts.
LIGHTNING = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=CONTEXT,
    layer_pattern="SF",
    sliding_window=8,
    kv_share=2,
    intermediate_size=48,
    num_dense_layers=1,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    initializer_range=0.3,
    balance=BalanceConfig(expert_groups=2, partitions=2),
)

#: The same without experts: nothing but rounding may move its results.
DENSE = LIGHTNING.model_copy(update={"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0})

#: Experts in the last layer alone: where rounding makes its router choose others, no other token's results are touched.
EXPERTS_LAST = LIGHTNING.model_copy(update={"num_dense_layers": 3})

#: A megabyte and a half of weights: one that is not given back is seen among the noise of an allocator.
HEAVY = DENSE.model_copy(update={"vocab_size": 4096, "intermediate_size": 2048, "num_hidden_layers": 2})

#: The pattern of the real one, eight layers of experts, of which the last reads the keys and values of the fourth.
DEEP = LIGHTNING.model_copy(
    update={
        "num_hidden_layers": 8,
        "max_position_embeddings": 160,
        "layer_pattern": "SSSF",
        "intermediate_size": 32,
        "num_dense_layers": 0,
    }
)

#: What open checkpoints add to the plan; a backend serves each right, or refuses it by name.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "gates, norms after, sigmoid routing with bias, no positions in full layers": {
        "attention_gate": True,
        "post_norms": True,
        "router_score": "sigmoid",
        "router_bias": True,
        "router_scale": 2.5,
        "num_shared_experts": 1,
        "rope_layers": "window",
        "embedding_scale": 32**0.5,
    },
    "clipped projections, norms over all heads, stretched positions": {
        "clip_qkv": 0.5,
        "qk_norm_span": "projection",
        "norm_topk_prob": False,
        "rope_scaling": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=64),
        "tie_word_embeddings": False,
    },
}


Choices = Mapping[str, tuple[Any, ...]]

#: What shapes the layers of a Yi-Lightning model, and may be anything of this.
LAYER_CHOICES: Choices = {
    "num_hidden_layers": (2, 3, 4, 5),
    "head_dim": (8, 16, 32),
    "layer_pattern": ("SSSF", "SF", "F", "S", "FFS"),
    "sliding_window": (1, 2, 5, 8, 13, 64),
    "kv_share": (1, 2, 3),
    "num_dense_layers": (0, 1),
    "num_experts_per_tok": (1, 3),
    "num_shared_experts": (0, 1),
    "norm_topk_prob": (True, False),
    "qk_norm": (True, False),
    "tie_word_embeddings": (True, False),
}

#: And every choice of open checkpoints: all that changes an exported graph.
GRAPH_CHOICES: Choices = {
    **LAYER_CHOICES,
    "router_score": ("softmax", "sigmoid"),
    "router_bias": (True, False),
    "router_scale": (1.0, 1.7, 2.5),
    "rope_layers": ("all", "window"),
    "rope_scaling": (
        None,
        RopeScaling(rope_type="linear", factor=2.0),
        RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=40),
    ),
    "qk_norm_span": ("head", "projection"),
    "clip_qkv": (None, 0.7, 1.3),
    "attention_gate": (True, False),
    "post_norms": (True, False),
    "embedding_scale": (1.0, 3.3),
}


def random_config(
    random: np.random.Generator, choices: Choices = LAYER_CHOICES, base: ModelConfig = LIGHTNING
) -> ModelConfig:
    """Draw a plan nobody thought of: one value of each of `choices`, random heads, and every fifth without experts."""
    changes = {name: values[random.integers(len(values))] for name, values in choices.items()}
    kv_heads = int(random.integers(1, 3))
    changes |= {"num_attention_heads": kv_heads * int(random.integers(1, 4)), "num_key_value_heads": kv_heads}
    if random.random() < 0.2:
        changes |= {"num_experts": 0, "num_experts_per_tok": 0, "num_shared_experts": 0, "moe_intermediate_size": 0}
    return with_changes(base, changes)


def with_changes(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """Return the config with some keys changed, checked anew."""
    return ModelConfig.model_validate(config.model_dump() | dict(changes))


def random_model(config: ModelConfig, seed: int) -> Transformer:
    """Make a model in float32 with weights of `seed`."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = Transformer(config)
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.ndim == 1:  # norms begin as ones and biases as zeros, which would hide one that is left out
                    tensor += 0.2 * torch.randn_like(tensor)
    return model.eval()


def save_random_model(config: ModelConfig, seed: int, folder: Path) -> Path:
    """Save `random_model` into a folder, as a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(random_model(config, seed), folder)
    return folder


def fresh_seed() -> int:
    """Return a seed that no run had before. What is made of it must say it where a claim fails."""
    return int(np.random.SeedSequence().generate_state(1)[0])
