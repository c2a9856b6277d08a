"""An artefact is whole or refused, says what it is, needs no PyTorch, and replaces nothing but an artefact."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fulmen_backend_openvino.backend import OpenVinoBackend
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError, CorruptArtefact, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import hash_file, hash_tree
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, SequenceStep

from .conftest import Exported

LIMITS = EngineLimits(max_sequences=2, max_context=32, max_step_tokens=16, threads=1)


@pytest.fixture
def copied(lightning: Exported, tmp_path: Path) -> Path:
    return shutil.copytree(lightning.artefact, tmp_path / "artefact")


def manifest_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / MANIFEST_FILE).read_text())
    return document


def sign(directory: Path, name: str) -> None:
    """Let the manifest say that a changed file is what it should be."""
    manifest = manifest_of(directory)
    manifest["files"] |= {name: hash_file(directory / name)}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))


def load(directory: Path) -> None:
    OpenVinoBackend().load_runner(directory, LIMITS).close()


def test_the_manifest_names_every_file_and_the_model(exported: Exported) -> None:
    manifest = manifest_of(exported.artefact)
    files = {file.name for file in exported.artefact.iterdir()} - {MANIFEST_FILE}
    assert manifest["files"] == {name: hash_file(exported.artefact / name) for name in files}
    assert files >= {"openvino_model.xml", "openvino_model.bin", "config.json", "README.md"}
    assert manifest["format"] == "openvino"
    assert manifest["dtype"] == "float32"
    assert manifest["model_hash"] == hash_tree(exported.model)
    assert set(manifest["tool_versions"]) >= {"torch", "openvino"}


def test_inputs_and_outputs_are_those_of_optimum_intel(lightning: Exported) -> None:
    manifest = manifest_of(lightning.artefact)
    assert {value["name"]: value["shape"] for value in manifest["inputs"]} == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "total"],
        "position_ids": ["batch", "length"],
        "beam_idx": ["batch"],
    }
    assert manifest["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": ["batch", "length", lightning.config.vocab_size]}
    ]


def test_each_weight_is_stored_once(lightning: Exported) -> None:
    # both forms of the experts read them, and the head is tied
    weights = sum(tensor.nbytes for tensor in load_model(lightning.model).state_dict().values())
    assert 0.95 * weights < (lightning.artefact / "openvino_model.bin").stat().st_size < 1.02 * weights


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["openvino_model.xml", "openvino_model.bin", "config.json"])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_named(copied: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(copied / name)
    with pytest.raises(CorruptArtefact, match=name):
        load(copied)


def test_a_truncated_manifest_is_refused(copied: Path) -> None:
    truncate(copied / MANIFEST_FILE)
    with pytest.raises(CorruptArtefact, match="artefact manifest is not valid JSON"):
        load(copied)


@pytest.mark.parametrize("content", [b"no graph", b"<?xml version='1.0'?><net name='x' version='11'></net>"])
def test_a_graph_that_openvino_cannot_load_is_refused(copied: Path, content: bytes) -> None:
    (copied / "openvino_model.xml").write_bytes(content)
    sign(copied, "openvino_model.xml")
    with pytest.raises(CorruptArtefact, match="OpenVINO cannot load the graph"):
        load(copied)


def test_a_graph_without_our_names_is_refused(copied: Path) -> None:
    graph = copied / "openvino_model.xml"
    graph.write_text(graph.read_text().replace('name="layers.1.query"', 'name="query"'))
    sign(copied, "openvino_model.xml")
    with pytest.raises(CorruptArtefact, match=r"cannot load the graph .*layers\.1\.query"):
        load(copied)


def test_weights_that_end_early_are_refused(copied: Path) -> None:
    truncate(copied / "openvino_model.bin")
    sign(copied, "openvino_model.bin")
    with pytest.raises(CorruptArtefact, match="OpenVINO cannot load the graph"):
        load(copied)


def test_a_checkpoint_is_refused_with_the_command_that_exports_it(lightning: Exported) -> None:
    with pytest.raises(CapabilityError, match="fulmen export --to openvino"):
        load(lightning.model)


def test_another_format_is_refused(copied: Path) -> None:
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest_of(copied) | {"format": "onnx"}))
    with pytest.raises(CapabilityError, match="'onnx'"):
        load(copied)


def test_an_artefact_of_another_plan_is_refused(lightning: Exported, tmp_path: Path, copied: Path) -> None:
    model = load_model(lightning.model)
    (tmp_path / "other").mkdir()
    save_model(type(model)(model.config.model_copy(update={"layer_pattern": "FS"})), tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "config.json", copied / "config.json")
    sign(copied, "config.json")
    with pytest.raises(CorruptArtefact, match="different layers"):
        load(copied)


def test_what_the_capabilities_do_not_list_is_refused(lightning: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OpenVinoBackend()
    capabilities = backend.capabilities()
    assert not capabilities.train
    assert not capabilities.quantizations
    assert "float32" in capabilities.serve_dtypes
    with pytest.raises(CapabilityError, match="export the model with --quantize int8"):
        backend.load_runner(lightning.artefact, LIMITS, quantize="int8")
    with pytest.raises(CapabilityError, match="does not train"):
        backend.prepare_training(load_model(lightning.model), TrainPlan())
    monkeypatch.setattr("fulmen_backend_openvino.compiling.computes_in", lambda core, dtype: dtype == "float32")
    assert backend.capabilities().serve_dtypes == ("float32",)
    with pytest.raises(CapabilityError, match="does not compute in bfloat16 on this CPU: use float32"):
        backend.load_runner(lightning.artefact, LIMITS, "bfloat16")


def test_adapters_are_refused_and_never_left_out_in_silence(lightning: Exported, tmp_path: Path) -> None:
    backend = OpenVinoBackend()
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


def test_a_step_that_the_kernels_would_take_on_trust_is_refused(lightning: Exported) -> None:
    runner = OpenVinoBackend().load_runner(lightning.artefact, LIMITS)
    wrong = {
        "at least one sequence": [],
        "each at least one token": [SequenceStep(0, 0, [])],
        "17 tokens are more than the 16": [SequenceStep(0, 0, [1] * 17)],
        "token 61 is not one of 0 to 60": [SequenceStep(0, 0, [1, 61])],
        "token -1 is not": [SequenceStep(0, 0, [-1])],
        "not different ones of 0 to 1": [SequenceStep(1, 0, [1]), SequenceStep(1, 0, [1])],
        "slots": [SequenceStep(2, 0, [1])],
        "position 32 is outside the 32": [SequenceStep(0, 32, [1])],
        "position -1": [SequenceStep(0, -1, [1])],
        "2 results are wanted of 1": [SequenceStep(0, 0, [1], wanted=2)],
        "0 pages do not hold 1 tokens": [SequenceStep(0, 0, [1], pages=[])],
        "page 2 is not one of 0 to 1": [SequenceStep(0, 0, [1], pages=[2])],
    }
    for said, batch in wrong.items():
        with pytest.raises(ValueError, match=said):
            runner.step(batch)
    with pytest.raises(ValueError, match="slot 2"):
        runner.copy_slot(0, 2, 1)
    with pytest.raises(ValueError, match="page 9"):
        runner.copy_page(0, 9)
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.step([SequenceStep(0, 0, [1])])


def test_the_registry_offers_the_backend_and_the_exporter() -> None:
    registry = Registry.of("fulmen_backend_openvino.plugin")
    assert registry.backend("openvino").name == "openvino"
    assert registry.exporter("openvino").name == "openvino"
    [record] = registry.backend_records()
    assert record.state == "active"


def test_an_option_that_means_nothing_here_is_refused(lightning: Exported, tmp_path: Path) -> None:
    exporter = Registry.of("fulmen_backend_openvino.plugin").exporter("openvino")
    for options in (ExportOptions(compute_capabilities=("8.9",)), ExportOptions(max_sequences=2)):
        with pytest.raises(CapabilityError, match="means nothing to the exporter openvino"):
            exporter.export(lightning.model, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_nothing_but_an_artefact(lightning: Exported, tmp_path: Path) -> None:
    exporter = Registry.of("fulmen_backend_openvino.plugin").exporter("openvino")
    (tmp_path / "thesis.tex").write_text("years of work")
    for out in (tmp_path, lightning.model):
        with pytest.raises(UserError, match="not empty"):
            exporter.export(lightning.model, out, ExportOptions())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_export_that_fails_leaves_nothing(
    lightning: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(network: object, options: object, folder: Path) -> None:
        (folder / "openvino_model.xml").write_bytes(b"half a graph")
        raise KeyboardInterrupt

    monkeypatch.setattr("fulmen_backend_openvino.exporter._write_graph", interrupted)
    exporter = Registry.of("fulmen_backend_openvino.plugin").exporter("openvino")
    with pytest.raises(KeyboardInterrupt):
        exporter.export(lightning.model, tmp_path / "out", ExportOptions())
    assert list(tmp_path.iterdir()) == []


def test_serving_imports_no_torch(lightning: Exported) -> None:
    program = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
from pathlib import Path
from fulmen_core.generation import generate
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
backend = Registry.of("fulmen_backend_openvino.plugin").backend("openvino")
runner = backend.load_runner(Path({str(lightning.artefact)!r}), EngineLimits(2, 64, 32, threads=1))
answers = generate(runner, [[1, 2, 3], [4]], SamplingParams(temperature=0, max_tokens=5))
print([len(answer) for answer in answers])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[5, 5]", done.stderr
