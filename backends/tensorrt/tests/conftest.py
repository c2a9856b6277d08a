"""Models, their graphs, and real engines of one of them, built once for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_tensorrt.artefact import EngineManifest
from fulmen_backend_tensorrt.calibration import input_ranges
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.exporter import rtx_exporter
from fulmen_backend_tensorrt.graphs import write_graphs
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.manifest import LayerInfo, hash_files
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import atomic_write_json
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_testing.exporter.exported import Exported, export_random_model
from fulmen_testing.models import DEEP, GRAPH_CHOICES, fresh_seed, random_config, with_changes

LIGHTNING = with_changes(DEEP, {"hidden_size": 24, "num_shared_experts": 1})
CONTEXT = LIGHTNING.max_position_embeddings
CHOICES = {
    **GRAPH_CHOICES,
    "num_experts_per_tok": (1, 3, 8),
    "sliding_window": (*GRAPH_CHOICES["sliding_window"], 500),
}
OPTIONS = ExportOptions(dtype="float16", max_sequences=4, max_step_tokens=16, compute_capabilities=("8.9", "12.0"))

needs_rtx = pytest.mark.skipif(
    PRODUCTS["tensorrt-rtx"].installed() is None, reason="tensorrt-rtx is not installed: no engine is built"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw_plan() -> tuple[ModelConfig, int]:
    """A plan drawn afresh, and the seed that it was drawn with."""
    seed = fresh_seed()
    return random_config(np.random.default_rng(seed), CHOICES, LIGHTNING), seed


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
    with input_ranges(network) as ranges:
        if quantize == "fp8":
            ask_checkpoint(network, model)
    graphs = write_graphs(network, artefact, Capacities.of(network.config, context, chunk), dtype, quantize, ranges)
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
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Yi-Lightning's plan, and real engines of it in float16. Do not change its files: copy them."""
    if PRODUCTS["tensorrt-rtx"].installed() is None:
        pytest.skip("tensorrt-rtx is not installed: no engine is built")
    return export_random_model(rtx_exporter(), LIGHTNING, 0, tmp_path_factory.mktemp("lightning"), OPTIONS)
