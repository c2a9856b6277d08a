"""Exported models for the whole session: Yi-Lightning's plan at toy size, every open family, and one drawn afresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.config import ModelConfig, RopeScaling
from fulmen_testing.exporter.exported import Exported, export_random_model
from fulmen_testing.models import DEEP as LIGHTNING
from fulmen_testing.models import GRAPH_CHOICES, fresh_seed, random_config, with_changes

CONTEXT = LIGHTNING.max_position_embeddings
CHOICES = {**GRAPH_CHOICES, "head_dim": (8, 16, 24, 32), "num_shared_experts": (0, 1, 2)}

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


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    return export_drawn(tmp_path_factory.mktemp("random"))


def export_drawn(root: Path) -> Exported:
    """Export a plan drawn afresh."""
    seed = fresh_seed()
    return export(random_config(np.random.default_rng(seed), CHOICES, LIGHTNING), seed, root)


def family(name: str) -> ModelConfig:
    """The config of one of `FAMILIES`."""
    return with_changes(LIGHTNING, FAMILIES[name])


def export(config: ModelConfig, seed: int, root: Path, options: ExportOptions | None = None) -> Exported:
    """Make a model with weights of `seed` and export it."""
    return export_random_model(OnnxExporter(), config, seed, root, options)
