"""An artefact is whole or refused, says what it is, needs no PyTorch, and replaces nothing but an artefact."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from fulmen_backend_onnxruntime import plugin
from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.errors import CapabilityError
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import load_model
from fulmen_testing.exporter.artefacts import LIMITS, ArtefactClaims, manifest_of
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import save_random_model


class TestOnnxArtefacts(ArtefactClaims):
    module = "fulmen_backend_onnxruntime.plugin"
    backend_name = "onnxruntime"
    format = "onnx"
    graph = "model.onnx"
    files = frozenset({"model.onnx.data", "genai_config.json"})
    tools = frozenset({"onnx", "onnxruntime"})
    runtime = "ONNX Runtime"


def test_the_graph_has_one_pair_of_caches_for_each_owner_and_varies_in_batch_and_length(exported: Exported) -> None:
    manifest = manifest_of(exported.artefact)
    inputs = {value["name"]: value["shape"] for value in manifest["inputs"]}
    layers = manifest["layer_plan"]
    caches = {layer["cache"]: layer["window"] for layer in layers}
    assert inputs["input_ids"] == ["batch", "length"]
    assert {name for name in inputs if name.startswith("past")} == {
        f"past_key_values.{cache}.{kind}" for cache in caches for kind in ("key", "value")
    }
    for cache, window in caches.items():
        shape = inputs[f"past_key_values.{cache}.key"]
        assert shape == ["batch", shape[1], "window_capacity" if window else "capacity", exported.config.head_dim]


def test_weights_lie_beside_the_graph_where_no_limit_applies(lightning: Exported) -> None:
    # a graph that held them would end at 2 GB
    weights = sum(tensor.nbytes for tensor in load_model(lightning.model).state_dict().values())
    assert (lightning.artefact / "model.onnx.data").stat().st_size >= weights
    graph = onnx.load(lightning.artefact / "model.onnx", load_external_data=False).graph
    inline = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(tensor.raw_data) for tensor in inline) < 10_000


def test_the_graph_says_of_which_model_and_weights_it_is(lightning: Exported) -> None:
    graph = onnx.load(lightning.artefact / "model.onnx", load_external_data=False)
    manifest = manifest_of(lightning.artefact)
    assert {entry.key: entry.value for entry in graph.metadata_props} == {
        "fulmen.model_hash": manifest["model_hash"],
        "fulmen.weights_hash": manifest["files"]["model.onnx.data"],
    }


def test_heads_that_the_attention_operator_does_not_take_are_refused(lightning: Exported, tmp_path: Path) -> None:
    save_random_model(lightning.config.model_copy(update={"head_dim": 12}), 0, tmp_path / "model")
    with pytest.raises(CapabilityError, match="multiple of 8, not head_dim = 12"):
        OnnxExporter().export(tmp_path / "model", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


def test_what_the_capabilities_do_not_list_is_refused(lightning: Exported) -> None:
    backend = OnnxRuntimeBackend()
    capabilities = backend.capabilities()
    assert capabilities.serve_dtypes == ("float32", "float16")
    with pytest.raises(CapabilityError, match="does not serve in bfloat16"):
        backend.load_runner(lightning.artefact, LIMITS, "bfloat16")
    with pytest.raises(CapabilityError, match="has another dtype than float16"):
        backend.load_runner(lightning.artefact, LIMITS, "float16")
    with pytest.raises(CapabilityError, match="has another quantisation than int8"):
        backend.load_runner(lightning.artefact, LIMITS, quantize="int8")
    with pytest.raises(CapabilityError, match="has another dtype of keys and values than int8"):
        backend.load_runner(lightning.artefact, LIMITS, kv_dtype="int8")


def test_a_runner_says_what_computes_and_why(lightning: Exported) -> None:
    runner = OnnxRunner(lightning.artefact, LIMITS)
    assert runner.choices["provider"] == "CPUExecutionProvider"
    others = set(onnxruntime.get_available_providers()) - {"CPUExecutionProvider"}
    assert all(name in runner.choices["provider_reason"] for name in others)
    assert (runner.choices["weights"], runner.choices["kv_dtype"], runner.choices["threads"]) == (
        "float32",
        "float32",
        "1",
    )
    runner.close()


@pytest.mark.parametrize(
    ("installed", "ok", "reason"),
    [
        ({}, False, "ONNX Runtime is not installed: pip install"),
        ({"onnxruntime-gpu": "1.31.1"}, False, "onnxruntime-gpu 1.31.1 is too old: pip install"),
        ({"onnxruntime": "1.32.0"}, True, ""),
        ({"onnxruntime-openvino": "1.40.2"}, True, ""),
    ],
)
def test_the_probe_knows_every_build(
    installed: dict[str, str], ok: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "versions_of", lambda *names: {n: v for n, v in installed.items() if n in names})
    found = plugin.probe_runtime()
    assert found.ok == ok
    assert found.reason.startswith(reason)
    assert found.versions == installed


def test_an_export_that_fails_leaves_nothing(
    lightning: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(graph: object, path: Path) -> None:
        path.write_bytes(b"half a graph")
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx.save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        OnnxExporter().export(lightning.model, tmp_path / "out", ExportOptions())
    assert list(tmp_path.iterdir()) == []
