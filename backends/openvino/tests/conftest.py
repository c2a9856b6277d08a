"""Two exported models for the whole session: Yi-Lightning's plan at toy size, and one drawn afresh each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_openvino.plugin import probe_runtime
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.config import ModelConfig
from fulmen_testing.exporter.exported import Exported, export_random_model
from fulmen_testing.models import DEEP, GRAPH_CHOICES, fresh_seed, random_config, with_changes

LIGHTNING = with_changes(DEEP, {"moe_intermediate_size": 32})
CONTEXT = LIGHTNING.max_position_embeddings
CHOICES = {
    **GRAPH_CHOICES,
    "head_dim": (4, 8, 16, 24),
    "num_experts": (4, 8, 12),
    "sliding_window": (1, 2, 5, 8, 33, 64),
}


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


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Yi-Lightning's plan. Do not change its files: copy them."""
    return export(LIGHTNING, 0, tmp_path_factory.mktemp("lightning"))


@pytest.fixture(scope="session", params=["lightning", "random"])
def exported(request: pytest.FixtureRequest, lightning: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The models in turn."""
    if request.param == "lightning":
        return lightning
    return export_drawn(tmp_path_factory.mktemp("random"))


def export_drawn(root: Path) -> Exported:
    """Export a plan drawn afresh."""
    seed = fresh_seed()
    return export(random_config(np.random.default_rng(seed), CHOICES, LIGHTNING), seed, root)


def export(config: ModelConfig, seed: int, root: Path, options: ExportOptions | None = None) -> Exported:
    """Make a model with weights of `seed` and export it."""
    from fulmen_backend_openvino.exporter import OpenVinoExporter

    return export_random_model(OpenVinoExporter(), config, seed, root, options)
