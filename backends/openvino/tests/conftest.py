"""Two exported models for the whole session: Yi-Lightning's plan at toy size, and one drawn afresh each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fulmen_backend_openvino.plugin import probe_runtime
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
    moe_intermediate_size=32,
    initializer_range=0.3,  # wide enough that attention and routing are far from uniform
    balance=BalanceConfig(expert_groups=2, partitions=2),
)


@dataclass(frozen=True)
class Exported:
    """A model directory and the artefact that was made of it. `label` says of a random one how to make it again."""

    label: str
    config: ModelConfig
    model: Path
    artefact: Path


class Unavailable(pytest.Module):
    """A test module that is skipped without being imported, as it imports what is not there."""

    def collect(self) -> list[pytest.Item]:
        raise pytest.skip.Exception(probe_runtime().reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Where OpenVINO is not installed nothing that runs it is tested; what says so is."""
    if probe_runtime().ok or module_path.name == "test_openvino_plugin.py":
        return None
    return Unavailable.from_parent(parent, path=module_path)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_config(random: np.random.Generator) -> ModelConfig:
    """A plan nobody thought of, with every choice of the model that changes the graph."""

    def choose(*values: object) -> Any:
        return values[random.integers(len(values))]

    kv_heads = int(random.integers(1, 3))
    experts = choose(4, 8, 12)
    changes: dict[str, Any] = {
        "num_hidden_layers": int(random.integers(2, 6)),
        "num_attention_heads": kv_heads * int(random.integers(1, 4)),
        "num_key_value_heads": kv_heads,
        "head_dim": choose(4, 8, 16, 24),
        "layer_pattern": choose("SSSF", "SF", "F", "S", "FFS"),
        "sliding_window": choose(1, 2, 5, 8, 33, 64),
        "kv_share": int(random.integers(1, 4)),
        "num_dense_layers": int(random.integers(0, 2)),
        "num_experts": experts,
        "num_experts_per_tok": choose(1, 3),
        "num_shared_experts": int(random.integers(0, 2)),
        "norm_topk_prob": choose(True, False),
        "router_score": choose("softmax", "sigmoid"),
        "router_bias": choose(True, False),
        "router_scale": choose(1.0, 2.5),
        "rope_scaling": choose(
            None,
            RopeScaling(rope_type="linear", factor=2),
            RopeScaling(rope_type="yarn", factor=4, original_max_position_embeddings=40),
        ),
        "rope_layers": choose("all", "window"),
        "qk_norm": choose(True, False),
        "qk_norm_span": choose("head", "projection"),
        "clip_qkv": choose(None, 0.7),
        "attention_gate": choose(True, False),
        "post_norms": choose(True, False),
        "embedding_scale": choose(1.0, 3.0),
        "tie_word_embeddings": choose(True, False),
    }
    if random.random() < 0.2:
        changes |= {"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0}
    return ModelConfig.model_validate(LIGHTNING.model_dump() | changes)


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Yi-Lightning's plan. Do not change its files: copy them."""
    return export(LIGHTNING, 0, tmp_path_factory.mktemp("lightning"))


@pytest.fixture(scope="session", params=["lightning", "random"])
def exported(request: pytest.FixtureRequest, lightning: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The models in turn."""
    if request.param == "lightning":
        return lightning
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    return export(random_config(np.random.default_rng(seed)), seed, tmp_path_factory.mktemp("random"))


def export(config: ModelConfig, seed: int, root: Path, options: ExportOptions | None = None) -> Exported:
    """Make a model with weights of `seed` and export it."""
    from fulmen_backend_openvino.exporter import OpenVinoExporter

    torch.manual_seed(seed)
    network = Transformer(config)
    for block in network.blocks:
        bias = getattr(getattr(block.ffn, "router", None), "bias", None)
        if bias is not None:
            bias.uniform_(-0.1, 0.1)  # zeros would choose nothing
    (root / "model").mkdir()
    save_model(network, root / "model")
    OpenVinoExporter().export(root / "model", root / "artefact", options or ExportOptions())
    return Exported(f"seed {seed}, {config!r}", config, root / "model", root / "artefact")
