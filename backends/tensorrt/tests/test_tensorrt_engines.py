"""Real engines, built here without a GPU: for stated devices, in every precision, taken over, refused, crashed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx import TensorProto, helper

from fulmen_backend_tensorrt.artefact import PHASES, TIMING_FILE, EngineManifest, graph_file
from fulmen_backend_tensorrt.build import BuildError, build_engine
from fulmen_backend_tensorrt.devices import find_devices
from fulmen_backend_tensorrt.engine_spec import EngineSpec, Range
from fulmen_backend_tensorrt.exporter import rtx_exporter
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_backend_tensorrt.twin_executor import EXECUTED
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.cli import main
from fulmen_core.errors import CapabilityError, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import hash_file, hash_tree
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import save_random_model

from .conftest import LIGHTNING, OPTIONS, draw_plan, needs_rtx

pytestmark = needs_rtx

RTX = PRODUCTS["tensorrt-rtx"]
FOUR_LAYERS = LIGHTNING.model_copy(update={"num_hidden_layers": 4, "layer_pattern": "SF"})  # the last one borrows


def manifest_of(directory: Path) -> EngineManifest:
    return EngineManifest.model_validate_json((directory / MANIFEST_FILE).read_bytes())


def test_the_manifest_says_what_was_built_for_what(lightning: Exported) -> None:
    manifest = manifest_of(lightning.artefact)
    files = {file.name for file in lightning.artefact.iterdir()} - {MANIFEST_FILE}
    assert manifest.files == {name: hash_file(lightning.artefact / name) for name in files}
    assert manifest.compute_capabilities == ("8.9", "12.0")
    assert manifest.tensorrt_version == RTX.installed()
    assert (manifest.max_sequences, manifest.max_context, manifest.chunk) == (4, 160, 16)
    assert manifest.model_hash == hash_tree(lightning.model)
    assert set(manifest.engines.values()) <= files
    assert all(manifest.build_seconds[phase] > 0 for phase in PHASES)
    assert all((lightning.artefact / name).stat().st_size > 1_000_000 for name in manifest.engines.values())
    shapes = {tensor.name: tensor.shape for tensor in manifest.inputs}
    assert shapes["past_key_values.0.key"] == ("batch", 2, 8 + 16, 16)  # a window layer: the window and a chunk
    assert shapes["past_key_values.3.value"] == ("batch", 2, 161, 16)
    assert len([name for name in shapes if name.startswith("past")]) == 2 * 7  # layer 7 borrows from layer 3
    assert shapes["blocks.0.ffn.experts.gate_up_EGD"] == (8, 32, 24)


def test_the_experts_are_not_in_the_engines_and_lie_in_the_folder_once(lightning: Exported) -> None:
    manifest = manifest_of(lightning.artefact)
    total = sum(tensor.nbytes for tensor in manifest.experts.values())
    assert total == 8 * 8 * 3 * 16 * 24 * 2
    for phase in PHASES:
        initializers = onnx.load(lightning.artefact / graph_file(phase), load_external_data=False).graph.initializer
        assert {tensor.name for tensor in initializers}.isdisjoint(manifest.experts)


def test_the_check_says_that_the_graphs_were_run_and_the_engines_were_not(lightning: Exported) -> None:
    if find_devices().devices:
        pytest.skip("there is a GPU: the engines are run")
    found = rtx_exporter().check(lightning.artefact)
    assert found["executed"].startswith(f"{EXECUTED}: there is no GPU that CUDA can use: cudaError ")
    assert found["mean_kl"] < 0.01
    assert found["logits_compared"] > 100


def test_an_export_of_the_same_takes_the_engines_over_and_another_does_not(lightning: Exported, tmp_path: Path) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    again = rtx_exporter().export(lightning.model, out, OPTIONS)
    assert again["build_seconds"] == {"decode": 0.0, "prefill": 0.0}
    assert again["engines"] == dict(manifest_of(lightning.artefact).engines)
    (out / again["engines"]["decode"]).write_bytes(b"not whole")  # what is damaged is not taken over
    fewer = rtx_exporter().export(lightning.model, out, replace(OPTIONS, compute_capabilities=("8.9",)))
    assert all(fewer["build_seconds"][phase] > 0 for phase in PHASES)
    assert set(fewer["engines"].values()).isdisjoint(again["engines"].values())


@pytest.mark.parametrize(
    ("dtype", "quantize", "capability"),
    [
        ("bfloat16", None, "12.0"),
        ("float32", None, "8.9"),
        ("float16", "int8", "8.6"),
        ("float16", "int4", "8.6"),
        ("float16", "fp8", "8.9"),
        ("bfloat16", "fp8", "12.0"),
    ],
)
def test_every_precision_builds(tmp_path: Path, dtype: Dtype, quantize: Quantization | None, capability: str) -> None:
    save_random_model(FOUR_LAYERS, 0, tmp_path / "model")
    options = replace(OPTIONS, dtype=dtype, quantize=quantize, compute_capabilities=(capability,))
    manifest = rtx_exporter().export(tmp_path / "model", tmp_path / "out", options)
    assert (manifest["dtype"], manifest["quantize"]) == (dtype, quantize)
    assert manifest["files"].keys() >= {*manifest["engines"].values(), TIMING_FILE}


def test_a_random_plan_builds_without_a_stated_device(tmp_path: Path) -> None:
    config, seed = draw_plan()
    save_random_model(config, seed, tmp_path / "model")
    options = ExportOptions(dtype="float16", max_sequences=3, max_context=40, max_step_tokens=9)
    try:
        manifest = rtx_exporter().export(tmp_path / "model", tmp_path / "out", options)
    except BuildError as error:
        pytest.fail(f"seed {seed}, {config!r}: {error}")
    assert manifest["compute_capabilities"] == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compute_capabilities": ("9.0",)}, r"builds nothing for compute capability 9\.0: it knows .*8\.9, 12\.0"),
        ({"compute_capabilities": ("8.9", "new")}, "builds nothing for compute capability new"),
        (
            {"quantize": "fp8", "compute_capabilities": ("8.9", "8.6")},
            r"FP8 needs compute capability 8\.9 or later, and 8\.6 has no products of 8-bit floats",
        ),
        (
            {"quantize": "fp8", "compute_capabilities": ()},
            r"8\.0 has no products of 8.*state --compute-capability 8\.9",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    lightning: Exported, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CapabilityError, match=sentence):
        rtx_exporter().export(lightning.model, tmp_path / "out", replace(OPTIONS, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_a_model_without_experts_builds_in_8_bits(tmp_path: Path, quantize: Quantization) -> None:
    none = {"num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0, "num_shared_experts": 0}
    save_random_model(FOUR_LAYERS.model_copy(update=none), 0, tmp_path / "model")
    options = replace(OPTIONS, quantize=quantize, compute_capabilities=("8.9",))
    manifest = rtx_exporter().export(tmp_path / "model", tmp_path / "out", options)
    assert manifest["quantize"] == quantize
    assert manifest["experts"] == {}


def test_an_engine_whose_weights_can_be_exchanged_needs_a_gpu_to_be_built(tmp_path: Path) -> None:
    if find_devices().devices:
        pytest.skip("there is a GPU")
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float16), "weight")
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    spec = order(tmp_path, [node], x=("b", 4), y=("b", 4), initializers=[weight])
    build_engine(RTX, spec, "decode", tmp_path)
    with pytest.raises(BuildError, match=r"build graph\.onnx for 8\.9: .*CHECK\(status == CUDA_SUCCESS\) failed"):
        build_engine(RTX, spec.model_copy(update={"refit": True}), "decode", tmp_path)


def order(
    folder: Path,
    nodes: list[onnx.NodeProto],
    initializers: Sequence[TensorProto] = (),
    **shapes: tuple[int | str, ...],
) -> EngineSpec:
    """A graph of these nodes; inputs are what no node makes, the outputs of nodes are outputs."""
    made = {name for node in nodes for name in node.output}
    values = {name: helper.make_tensor_value_info(name, element_of(name), shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [v for n, v in values.items() if n not in made],
        [v for n, v in values.items() if n in made],
        initializers,
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), folder / "graph.onnx")
    profile = {
        name: Range(smallest=(1, *shape[1:]), usual=(4, *shape[1:]), largest=(4, *shape[1:]))  # type: ignore[arg-type]
        for name, shape in shapes.items()
        if name not in made
    }
    return EngineSpec(
        module=RTX.module,
        version=RTX.installed() or "",
        graph="graph.onnx",
        graph_hash="",
        profile=profile,
        compute_capabilities=("8.9",),
        refit=False,
    )


def element_of(name: str) -> int:
    return int(TensorProto.INT64 if name == "start" else TensorProto.FLOAT16)


def test_a_builder_that_crashes_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    # why borrowing layers are written as products: two Attention operators that read one cache end the process
    cache, one, heads = ("b", 2, 17, 16), ("b", 2, 1, 16), ("b", 4, 1, 16)
    nodes = [
        helper.make_node("TensorScatter", [f"past_{kind}", f"new_{kind}", "start"], [f"present_{kind}"], axis=2)
        for kind in ("key", "value")
    ]
    nodes += [
        helper.make_node("Attention", [query, "present_key", "present_value"], [result])
        for query, result in (("query", "first"), ("first", "second"))
    ]
    spec = order(
        tmp_path,
        nodes,
        query=heads,
        start=("b",),
        past_key=cache,
        past_value=cache,
        new_key=one,
        new_value=one,
        present_key=cache,
        present_value=cache,
        second=heads,
    )
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BuildError, match=r"cannot build graph\.onnx for 8\.9: its builder crashed \(SIGSEGV\)"):
        build_engine(RTX, spec, "decode", tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Whirl", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(BuildError, match=r"cannot build graph\.onnx.*Whirl"):
        build_engine(RTX, order(tmp_path, [node], x=("b", 4), y=("b", 4)), "decode", tmp_path)


def test_an_export_that_cannot_be_built_leaves_what_was_there(
    lightning: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise BuildError("it cannot be built")

    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    before = hash_tree(out)
    monkeypatch.setattr("fulmen_backend_tensorrt.exporter.build_engine", refuse)
    with pytest.raises(UserError, match="cannot be built"):
        rtx_exporter().export(lightning.model, out, replace(OPTIONS, max_sequences=3))
    assert hash_tree(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


def test_the_command_line_builds_checks_and_reports(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")  # so that the engines need not be built again
    command = ["export", "--to", "tensorrt-rtx", "--model", str(lightning.model), "--out", str(out), "--json"]
    limits = ["--dtype", "float16", "--max-sequences", "4", "--max-step-tokens", "16"]
    devices = ["--compute-capability", "8.9", "--compute-capability", "12.0"]
    assert main([*command, *limits, *devices]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["manifest"]["build_seconds"] == {"decode": 0.0, "prefill": 0.0}
    assert "executed" in result
    assert main(["export", "check", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_abs_diff"] > 0
    assert main([*command, *limits, "--compute-capability", "9.0"]) == 2
    assert "builds nothing for compute capability 9.0" in capsys.readouterr().err
