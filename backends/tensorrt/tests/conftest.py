"""Models, their graphs, and real engines of one of them, built once for the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_tensorrt.artefact import EngineManifest
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.exporter import rtx_exporter
from fulmen_backend_tensorrt.graphs import write_graphs
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.export.manifest import LayerInfo, hash_files
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import atomic_write_json
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.transformer import Transformer

VOCABULARY = 61
CONTEXT = 160

LIGHTNING = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=24,
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
    num_shared_experts=1,
    initializer_range=0.3,  # wide enough that attention and routing are far from uniform
    balance=BalanceConfig(expert_groups=2, partitions=2),
)
OPTIONS = ExportOptions(dtype="float16", max_sequences=4, max_step_tokens=16, compute_capabilities=("8.9", "12.0"))

needs_rtx = pytest.mark.skipif(
    PRODUCTS["tensorrt-rtx"].installed() is None, reason="tensorrt-rtx is not installed: no engine is built"
)


@dataclass(frozen=True)
class Written:
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
    """A plan nobody thought of, with every choice of a model that changes the graph."""

    def choose(*values: object) -> object:
        return values[random.integers(len(values))]

    kv_heads = int(random.integers(1, 3))
    changes = {
        "num_hidden_layers": int(random.integers(2, 6)),
        "num_attention_heads": kv_heads * int(random.integers(1, 4)),
        "num_key_value_heads": kv_heads,
        "head_dim": choose(8, 16, 32),
        "layer_pattern": choose("SSSF", "SF", "F", "S", "FFS"),
        "sliding_window": choose(1, 2, 5, 8, 13, 64, 500),
        "kv_share": int(random.integers(1, 4)),
        "num_dense_layers": int(random.integers(0, 2)),
        "num_experts_per_tok": choose(1, 3, 8),
        "num_shared_experts": int(random.integers(0, 2)),
        "norm_topk_prob": choose(True, False),
        "router_score": choose("softmax", "sigmoid"),
        "router_bias": choose(True, False),
        "router_scale": choose(1.0, 1.5),
        "rope_layers": choose("all", "window"),
        "rope_scaling": choose(None, RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=40)),
        "qk_norm": choose(True, False),
        "qk_norm_span": choose("head", "projection"),
        "clip_qkv": choose(None, 1.5),
        "attention_gate": choose(True, False),
        "post_norms": choose(True, False),
        "embedding_scale": choose(1.0, 3.0),
        "tie_word_embeddings": choose(True, False),
    }
    if random.random() < 0.2:
        changes |= {"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0}
    return ModelConfig.model_validate(LIGHTNING.model_dump() | changes)


def save(config: ModelConfig, seed: int, directory: Path) -> None:
    """Make a model with weights of `seed`, biases of its routers included."""
    torch.manual_seed(seed)
    network = Transformer(config)
    for name, buffer in network.named_buffers():
        if name.endswith("router.bias"):
            buffer.copy_(torch.randn(buffer.shape) * 0.1)
    directory.mkdir()
    save_model(network, directory)


def write(
    model: Path,
    artefact: Path,
    dtype: Dtype = "float32",
    quantize: Quantization | None = None,
    context: int = CONTEXT,
    chunk: int = 16,
) -> EngineManifest:
    """An artefact of graphs that no engine was built of: all that a CPU can run."""
    network = load_model(model)
    artefact.mkdir()
    graphs = write_graphs(network, artefact, Capacities.of(network.config, context, chunk), dtype, quantize)
    (artefact / "config.json").write_bytes((model / "config.json").read_bytes())
    manifest = EngineManifest(
        format="tensorrt-rtx",
        model_hash="",
        dtype=dtype,
        quantize=quantize,
        files=hash_files(artefact),
        inputs=graphs.inputs,
        outputs=graphs.outputs,
        layer_plan=LayerInfo.of(LayerPlan.of(network.config)),
        tool_versions={},
        tensorrt_version="",
        compute_capabilities=(),
        max_sequences=3,
        max_context=context,
        chunk=chunk,
        engines={},
        build_seconds={},
        experts=graphs.experts,
    )
    atomic_write_json(artefact / MANIFEST_FILE, manifest.model_dump(mode="json"))
    return manifest


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Yi-Lightning's plan, and real engines of it in float16. Do not change its files: copy them."""
    if PRODUCTS["tensorrt-rtx"].installed() is None:
        pytest.skip("tensorrt-rtx is not installed: no engine is built")
    root = tmp_path_factory.mktemp("lightning")
    save(LIGHTNING, 0, root / "model")
    rtx_exporter().export(root / "model", root / "artefact", OPTIONS)
    return Written("lightning", LIGHTNING, root / "model", root / "artefact")
