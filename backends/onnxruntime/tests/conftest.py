"""Exported models for the whole session: Yi-Lightning's plan at toy size, every open family, and one drawn afresh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
from fulmen_core.model.transformer import Transformer

VOCABULARY = 61
CONTEXT = 160

LIGHTNING = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=CONTEXT,
    layer_pattern="SSSF",
    sliding_window=8,
    kv_share=2,
    intermediate_size=32,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    initializer_range=0.3,  # wide enough that attention and routing are far from uniform
    balance=BalanceConfig(expert_groups=2, partitions=2),
)

_PLAIN: dict[str, Any] = {"kv_share": 1, "num_hidden_layers": 4}
_DENSE: dict[str, Any] = {**_PLAIN, "num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0}

#: What of `LIGHTNING` each open family changes: between them every choice of `ModelConfig`.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        **_DENSE,
        "layer_pattern": "F",
        "qk_norm": False,
        "rope_scaling": RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=32),
    },
    "mistral": {**_DENSE, "layer_pattern": "S", "qk_norm": False, "tie_word_embeddings": False},
    "mixtral": {
        **_PLAIN,
        "layer_pattern": "F",
        "qk_norm": False,
        "rope_scaling": RopeScaling(rope_type="linear", factor=3.0),
    },
    "qwen3": {
        **_DENSE,
        "layer_pattern": "F",
        "rope_scaling": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
    },
    "qwen3-moe": {**_PLAIN, "layer_pattern": "F", "num_dense_layers": 1, "norm_topk_prob": False},
    "olmoe": {
        **_PLAIN,
        "layer_pattern": "F",
        "qk_norm_span": "projection",
        "clip_qkv": 0.7,
        "norm_topk_prob": False,
    },
    "afmoe": {
        **_PLAIN,
        "router_score": "sigmoid",
        "router_bias": True,
        "router_scale": 2.5,
        "rope_layers": "window",
        "attention_gate": True,
        "post_norms": True,
        "embedding_scale": 5.5,
        "num_dense_layers": 1,
        "num_shared_experts": 1,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class Exported:
    """A model directory and the artefact that was made of it. `label` says of a random one how to make it again."""

    label: str
    config: ModelConfig
    model: Path
    artefact: Path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_config(random: np.random.Generator) -> ModelConfig:
    """A plan nobody thought of, with every choice of the model that changes the graph."""

    def choose(*values: object) -> object:
        return values[random.integers(len(values))]

    kv_heads = int(random.integers(1, 3))
    changes = {
        "num_hidden_layers": int(random.integers(2, 6)),
        "num_attention_heads": kv_heads * int(random.integers(1, 4)),
        "num_key_value_heads": kv_heads,
        "head_dim": choose(8, 16, 24, 32),
        "layer_pattern": choose("SSSF", "SF", "F", "S", "FFS"),
        "sliding_window": choose(1, 2, 5, 8, 13, 64),
        "kv_share": int(random.integers(1, 4)),
        "num_dense_layers": int(random.integers(0, 2)),
        "num_experts_per_tok": choose(1, 3),
        "num_shared_experts": int(random.integers(0, 3)),
        "norm_topk_prob": choose(True, False),
        "router_score": choose("softmax", "sigmoid"),
        "router_bias": choose(True, False),
        "router_scale": choose(1.0, 1.7),
        "rope_layers": choose("all", "window"),
        "qk_norm": choose(True, False),
        "qk_norm_span": choose("head", "projection"),
        "clip_qkv": choose(None, 1.3),
        "attention_gate": choose(True, False),
        "post_norms": choose(True, False),
        "embedding_scale": choose(1.0, 3.3),
        "tie_word_embeddings": choose(True, False),
    }
    if random.random() < 0.2:
        changes |= {"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0}
    return ModelConfig.model_validate(LIGHTNING.model_dump() | changes)


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Yi-Lightning's plan. Do not change its files: copy them."""
    return export(LIGHTNING, 0, tmp_path_factory.mktemp("lightning"))


@pytest.fixture(scope="session")
def afmoe(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The family that makes most choices. Do not change its files: copy them."""
    return export(family("afmoe"), 0, tmp_path_factory.mktemp("afmoe"))


@pytest.fixture(scope="session", params=["lightning", "afmoe", "random"])
def exported(
    request: pytest.FixtureRequest, lightning: Exported, afmoe: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """The models in turn."""
    if request.param != "random":
        return {"lightning": lightning, "afmoe": afmoe}[request.param]
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    return export(random_config(np.random.default_rng(seed)), seed, tmp_path_factory.mktemp("random"))


def family(name: str) -> ModelConfig:
    """The config of one of `FAMILIES`."""
    return ModelConfig.model_validate(LIGHTNING.model_dump() | FAMILIES[name])


def make_model(config: ModelConfig, seed: int, folder: Path) -> Transformer:
    """Save a model with weights of `seed`, of which none is what it was made as: norms are no ones, biases no zeros."""
    torch.manual_seed(seed)
    network = Transformer(config)
    for name, tensor in network.state_dict().items():
        if "norm" in name:
            tensor.normal_(1, 0.2)
        elif name.endswith("router.bias"):
            tensor.normal_(0, 0.2)
    folder.mkdir()
    save_model(network, folder)
    return network.eval()


def export(config: ModelConfig, seed: int, root: Path, options: ExportOptions | None = None) -> Exported:
    """Make a model with weights of `seed` and export it."""
    make_model(config, seed, root / "model")
    options = options or ExportOptions()
    OnnxExporter().export(root / "model", root / "artefact", options)
    return Exported(f"seed {seed}, {options}, {config!r}", config, root / "model", root / "artefact")
