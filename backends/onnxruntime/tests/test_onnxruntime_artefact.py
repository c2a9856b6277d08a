"""An artefact is whole or refused, says what it is, needs no PyTorch, and replaces nothing but an artefact."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest

from fulmen_backend_onnxruntime import plugin
from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError, CorruptArtefact, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import hash_file, hash_tree
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, SequenceStep

from .conftest import Exported, make_model

LIMITS = EngineLimits(max_sequences=2, max_context=32, max_step_tokens=16, threads=1)


@pytest.fixture
def copied(lightning: Exported, tmp_path: Path) -> Path:
    return shutil.copytree(lightning.artefact, tmp_path / "artefact")


def manifest_of(directory: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((directory / MANIFEST_FILE).read_text())
    return document


def load(directory: Path) -> None:
    OnnxRuntimeBackend().load_runner(directory, LIMITS).close()


def test_the_manifest_names_every_file_and_the_model(exported: Exported) -> None:
    manifest = manifest_of(exported.artefact)
    files = {file.name for file in exported.artefact.iterdir()} - {MANIFEST_FILE}
    assert manifest["files"] == {name: hash_file(exported.artefact / name) for name in files}
    assert files >= {"model.onnx", "model.onnx.data", "config.json", "genai_config.json"}
    assert manifest["format"] == "onnx"
    assert manifest["dtype"] == "float32"
    assert manifest["model_hash"] == hash_tree(exported.model)
    assert set(manifest["tool_versions"]) >= {"torch", "onnx", "onnxruntime"}  # type: ignore[call-overload]


def test_the_graph_has_one_pair_of_caches_for_each_owner_and_varies_in_batch_and_length(exported: Exported) -> None:
    manifest = manifest_of(exported.artefact)
    inputs = {value["name"]: value["shape"] for value in manifest["inputs"]}  # type: ignore[attr-defined]
    layers = manifest["layer_plan"]
    caches = {layer["cache"]: layer["window"] for layer in layers}  # type: ignore[attr-defined]
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
        "fulmen.weights_hash": manifest["files"]["model.onnx.data"],  # type: ignore[index]
    }


def test_heads_that_the_attention_operator_does_not_take_are_refused(lightning: Exported, tmp_path: Path) -> None:
    make_model(lightning.config.model_copy(update={"head_dim": 12}), 0, tmp_path / "model")
    with pytest.raises(CapabilityError, match="multiple of 8, not head_dim = 12"):
        OnnxExporter().export(tmp_path / "model", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "config.json"])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_named(copied: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(copied / name)
    with pytest.raises(CorruptArtefact, match=name):
        load(copied)


def test_a_truncated_manifest_is_refused(copied: Path) -> None:
    truncate(copied / MANIFEST_FILE)
    with pytest.raises(CorruptArtefact, match="artefact manifest is not valid JSON"):
        load(copied)


def test_a_manifest_with_a_wrong_value_is_refused(copied: Path) -> None:
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest_of(copied) | {"layer_plan": [{"window": "wide"}]}))
    with pytest.raises(CorruptArtefact, match=r"wrong at 'layer_plan\.0\.window'"):
        load(copied)


def test_a_graph_that_onnx_runtime_cannot_load_is_refused(copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"no graph")
    manifest = manifest_of(copied)
    manifest["files"] |= {"model.onnx": hash_file(copied / "model.onnx")}  # type: ignore[operator]
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact, match="ONNX Runtime cannot load the graph"):
        load(copied)


def test_a_manifest_cannot_point_outside_its_folder(copied: Path) -> None:
    manifest = manifest_of(copied)
    manifest["files"] |= {"../model/config.json": "0"}  # type: ignore[operator]
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact, match="outside its folder"):
        load(copied)


def test_a_checkpoint_is_refused_with_the_command_that_exports_it(lightning: Exported) -> None:
    with pytest.raises(CapabilityError, match="fulmen export --to onnx"):
        load(lightning.model)


def test_another_format_is_refused(copied: Path) -> None:
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest_of(copied) | {"format": "tensorrt"}))
    with pytest.raises(CapabilityError, match="'tensorrt'"):
        load(copied)


def test_what_the_capabilities_do_not_list_is_refused(lightning: Exported) -> None:
    backend = OnnxRuntimeBackend()
    capabilities = backend.capabilities()
    assert not capabilities.train
    assert capabilities.serve_dtypes == ("float32", "float16")
    with pytest.raises(CapabilityError, match="does not serve in bfloat16"):
        backend.load_runner(lightning.artefact, LIMITS, "bfloat16")
    with pytest.raises(CapabilityError, match="has another dtype than float16"):
        backend.load_runner(lightning.artefact, LIMITS, "float16")
    with pytest.raises(CapabilityError, match="has another quantisation than int8"):
        backend.load_runner(lightning.artefact, LIMITS, quantize="int8")
    with pytest.raises(CapabilityError, match="has another dtype of keys and values than int8"):
        backend.load_runner(lightning.artefact, LIMITS, kv_dtype="int8")
    with pytest.raises(CapabilityError, match="does not train"):
        backend.prepare_training(load_model(lightning.model), TrainPlan())


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


def test_adapters_are_refused_and_never_left_out_in_silence(lightning: Exported, tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend()
    assert not backend.capabilities().adapters
    with pytest.raises(CapabilityError, match="serves no adapters"):
        backend.load_runner(lightning.artefact, replace(LIMITS, adapters=1))
    runner = backend.load_runner(lightning.artefact, LIMITS)
    with pytest.raises(CapabilityError, match="serves no adapters"):
        runner.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="no adapter is loaded"):
        runner.step([SequenceStep(0, 0, [1, 2], adapter=1)])
    runner.unload_adapter(1)
    runner.close()


def test_the_registry_offers_the_backend_and_the_exporter() -> None:
    registry = Registry.of("fulmen_backend_onnxruntime.plugin")
    assert registry.backend("onnxruntime").name == "onnxruntime"
    assert registry.exporter("onnx").name == "onnx"
    [record] = registry.backend_records()
    assert record.state == "active"


def test_an_export_replaces_nothing_but_an_artefact(lightning: Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        OnnxExporter().export(lightning.model, out, ExportOptions())
    with pytest.raises(UserError, match="not empty"):
        OnnxExporter().export(lightning.model, lightning.model, ExportOptions())
    assert (out / "thesis.tex").read_text() == "years of work"


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


def test_an_artefact_of_another_plan_is_refused(lightning: Exported, tmp_path: Path, copied: Path) -> None:
    model = load_model(lightning.model)
    config = model.config.model_copy(update={"layer_pattern": "FS"})
    (tmp_path / "other").mkdir()
    save_model(type(model)(config), tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "config.json", copied / "config.json")
    manifest = manifest_of(copied)
    manifest["files"] |= {"config.json": hash_file(copied / "config.json")}  # type: ignore[operator]
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact, match="different layers"):
        load(copied)


def test_serving_imports_no_torch(lightning: Exported) -> None:
    program = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
from pathlib import Path
from fulmen_core.generation import generate
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
backend = Registry.of("fulmen_backend_onnxruntime.plugin").backend("onnxruntime")
runner = backend.load_runner(Path({str(lightning.artefact)!r}), EngineLimits(2, 64, 32, threads=1))
answers = generate(runner, [[1, 2, 3], [4]], SamplingParams(temperature=0, max_tokens=5))
print([len(answer) for answer in answers])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[5, 5]", done.stderr
