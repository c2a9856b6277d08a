"""An artefact is whole or refused, says what it is, needs no PyTorch, and replaces nothing but an artefact."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulmen_backend_openvino.backend import OpenVinoBackend
from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import load_model
from fulmen_core.registry import Registry
from fulmen_core.runner import SequenceStep
from fulmen_testing.exporter.artefacts import LIMITS, ArtefactClaims, manifest_of, sign, truncate
from fulmen_testing.exporter.exported import Exported


class TestOpenVinoArtefacts(ArtefactClaims):
    module = "fulmen_backend_openvino.plugin"
    backend_name = "openvino"
    format = "openvino"
    graph = "openvino_model.xml"
    files = frozenset({"openvino_model.bin", "README.md"})
    tools = frozenset({"openvino"})
    runtime = "OpenVINO"

    def test_a_graph_of_nothing_is_refused(self, copied: Path) -> None:
        (copied / self.graph).write_bytes(b"<?xml version='1.0'?><net name='x' version='11'></net>")
        sign(copied, self.graph)
        with pytest.raises(CorruptArtefact, match="OpenVINO cannot load the graph"):
            self.load(copied)

    def test_a_graph_without_our_names_is_refused(self, copied: Path) -> None:
        graph = copied / "openvino_model.xml"
        graph.write_text(graph.read_text().replace('name="layers.1.query"', 'name="query"'))
        sign(copied, "openvino_model.xml")
        with pytest.raises(CorruptArtefact, match=r"cannot load the graph .*layers\.1\.query"):
            self.load(copied)

    def test_weights_that_end_early_are_refused(self, copied: Path) -> None:
        truncate(copied / "openvino_model.bin")
        sign(copied, "openvino_model.bin")
        with pytest.raises(CorruptArtefact, match="OpenVINO cannot load the graph"):
            self.load(copied)


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


def test_what_the_capabilities_do_not_list_is_refused(lightning: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OpenVinoBackend()
    capabilities = backend.capabilities()
    assert not capabilities.quantizations
    assert "float32" in capabilities.serve_dtypes
    with pytest.raises(CapabilityError, match="export the model with --quantize int8"):
        backend.load_runner(lightning.artefact, LIMITS, quantize="int8")
    monkeypatch.setattr("fulmen_backend_openvino.compiling.computes_in", lambda dtype: dtype == "float32")
    assert backend.capabilities().serve_dtypes == ("float32",)
    with pytest.raises(CapabilityError, match="does not compute in bfloat16 on this CPU: use float32"):
        backend.load_runner(lightning.artefact, LIMITS, "bfloat16")


def test_float16_is_refused_whatever_the_cpu_has(lightning: Exported) -> None:
    """Where there is AVX512-FP16 OpenVINO lists it, and leaves attention with pages uncompiled in it."""
    backend = OpenVinoBackend()
    assert "float16" not in backend.capabilities().serve_dtypes
    with pytest.raises(CapabilityError, match="does not compute in float16 on this CPU: use float32"):
        backend.load_runner(lightning.artefact, LIMITS, "float16")


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


def test_an_option_that_means_nothing_here_is_refused(lightning: Exported, tmp_path: Path) -> None:
    exporter = Registry.of("fulmen_backend_openvino.plugin").exporter("openvino")
    for options in (ExportOptions(compute_capabilities=("8.9",)), ExportOptions(max_sequences=2)):
        with pytest.raises(CapabilityError, match="means nothing to the exporter openvino"):
            exporter.export(lightning.model, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


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
