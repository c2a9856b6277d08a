"""Native kernels compute what ONNX Runtime's own do, and serve where they can be had and no one wants the others."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fulmen_backend_onnxruntime import native_operators
from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.block_quantization import Bits, quantize
from fulmen_backend_onnxruntime.native_nodes import DOMAIN, with_native_nodes
from fulmen_backend_onnxruntime.native_operators import OPERATORS, choose_kernels
from fulmen_backend_onnxruntime.providers import CPU
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core import native_build
from fulmen_core.backend import Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.export.options import ExportOptions
from fulmen_core.native_build import build_library
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.models import fresh_seed

from .conftest import LIGHTNING, export

Array = NDArray[np.float32]

ALL = choose_kernels(None, CPU, quantized=True)
needs_native = pytest.mark.skipif(not ALL.native, reason=ALL.reason)


bit_widths: st.SearchStrategy[Bits] = st.sampled_from([8, 4])


def model_of(node: onnx.NodeProto, inputs: Mapping[str, int], outputs: int, weights: Mapping[str, Any]) -> bytes:
    """A graph of one node, by name of input its width."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name, width in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def product(rng: np.random.Generator, outputs: int, width: int, block: int, bits: Bits = 8, **attributes: int) -> bytes:
    """A MatMulNBits of random weights."""
    data, scales = quantize(rng.normal(size=(outputs, width)).astype(np.float32), bits, block)
    shape = {"N": outputs, "K": width, "bits": bits, "block_size": block, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **shape | attributes)
    return model_of(node, {"x": width}, outputs, {"w": data, "s": scales})


def mixture(
    rng: np.random.Generator,
    experts: int,
    shape: tuple[int, int, int],
    chosen: int,
    bits: Bits = 8,
    *,
    scored: bool,
    whole: bool,
) -> bytes:
    """A QMoE of random experts of a width, an inner width and a block; `scored`: mixed by scores of its own, `whole`:
    whose sum is made 1.
    """
    width, inner, block = shape
    first = rng.normal(size=(experts, 2 * inner, width)).astype(np.float32) / np.sqrt(width)
    second = rng.normal(size=(experts, width, inner)).astype(np.float32) / np.sqrt(inner)
    weights: dict[str, Any] = {}
    for name, weight in (("a", first.astype(np.float32)), ("b", second.astype(np.float32))):
        data, scales = quantize(weight, bits, block)
        weights |= {name: data.reshape(*data.shape[:2], -1), f"{name}s": scales}
    node = helper.make_node(
        "QMoE",
        ["x", "ranks", "a", "as", "", "b", "bs", "", *([""] * 6 + ["scores"] if scored else [])],
        ["y"],
        domain="com.microsoft",
        expert_weight_bits=bits,
        block_size=block,
        accuracy_level=4,
        normalize_routing_weights=int(whole),
        k=chosen,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
    )
    inputs = {"x": width, "ranks": experts} | ({"scores": experts} if scored else {})
    return model_of(node, inputs, width, weights)


def native_nodes(model: bytes) -> list[onnx.NodeProto]:
    return [node for node in onnx.load_from_string(model).graph.node if node.domain == DOMAIN]


def opened(model: bytes, threads: int = 1, *, native: bool) -> Callable[..., Array]:
    """What computes `model`, by ONNX Runtime's kernels or ours."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if native:
        options.register_custom_ops_library(str(build_library(OPERATORS)))
        model = with_native_nodes(model)
        assert len(native_nodes(model)) == 1
    session = onnxruntime.InferenceSession(model, options, providers=[CPU])

    def compute(**inputs: Array) -> Array:
        [found] = session.run(None, inputs)
        assert isinstance(found, np.ndarray)
        return found

    return compute


@needs_native
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([16, 32, 64, 128, 256]),
    bit_widths,
    st.integers(1, 3),
)
def test_a_product_is_onnxruntimes(seed: int, outputs: int, width: int, block: int, bits: Bits, threads: int) -> None:
    rng = np.random.default_rng(seed)
    model = product(rng, outputs, width, block, bits)
    theirs, ours = opened(model, native=False), opened(model, threads, native=True)
    for rows in (1, 2, 3, 4, 5, 17):
        x = rng.normal(size=(rows, width)).astype(np.float32)
        x[0] *= rng.choice([0.0, 1e-6, 1e6])
        off_MN = np.abs(ours(x=x) - theirs(x=x))
        assert (off_MN <= 2e-6 * np.abs(x).sum(1, keepdims=True)).all()  # weights are of size 1


@needs_native
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.sampled_from([(64, 32, 32), (128, 96, 32), (64, 192, 64), (256, 128, 128), (48, 16, 16)]),
    bit_widths,
    st.booleans(),
    st.booleans(),
)
def test_a_mixture_is_onnxruntimes(
    seed: int, experts: int, shape: tuple[int, int, int], bits: Bits, scored: bool, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    width = shape[0]
    chosen = int(rng.integers(1, experts + 1))
    model = mixture(rng, experts, shape, chosen, bits, scored=scored, whole=whole or not scored)
    theirs, ours = opened(model, native=False), opened(model, 2, native=True)
    off: list[float] = []  # of each row
    for rows in (1, 2, 7, 33):
        inputs = {"x": rng.normal(size=(rows, width)), "ranks": rng.normal(size=(rows, experts))}
        inputs["x"][0] *= rng.choice([1e-6, 1, 1e4])  # where sigmoids are a half, or 0 and 1
        if scored:
            inputs["scores"] = rng.uniform(0.1, 1, size=(rows, experts))
        given_inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
        expected, found = theirs(**given_inputs), ours(**given_inputs)
        off += (np.abs(found - expected).max(1) / np.abs(expected).max(1)).tolist()
    # what lies between two levels of the second product's inputs may be rounded the other way
    assert max(off) < 1e-2
    assert np.median(off) < 1e-5


@needs_native
def test_rows_and_threads_change_no_bit() -> None:
    rng = np.random.default_rng(fresh_seed())
    models = product(rng, 300, 128, 64), mixture(rng, 8, (128, 64, 64), 3, scored=True, whole=True)
    for model, names in zip(models, (["x"], ["x", "ranks", "scores"]), strict=True):
        one, three = opened(model, 1, native=True), opened(model, 3, native=True)
        widths = {"x": 128, "ranks": 8, "scores": 8}
        inputs = {name: rng.uniform(0.1, 1, size=(20, widths[name])).astype(np.float32) for name in names}
        together = one(**inputs)
        np.testing.assert_array_equal(three(**inputs), together)
        for first, end in pairwise((0, 1, 3, 6, 10, 20)):
            part = {name: array[first:end] for name, array in inputs.items()}
            np.testing.assert_array_equal(one(**part), together[first:end])


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_the_graph_changes_in_the_domain_of_its_nodes_alone(quantization: Quantization, tmp_path: Path) -> None:
    made = export(LIGHTNING, 0, tmp_path, ExportOptions(quantize=quantization))
    before = (made.artefact / "model.onnx").read_bytes()
    after = with_native_nodes(before)
    old, new = onnx.load_from_string(before), onnx.load_from_string(after)
    moved = [node for node in new.graph.node if node.domain == DOMAIN]
    assert len(moved) > LIGHTNING.num_hidden_layers
    assert {node.op_type for node in moved} == {"MatMulNBits", "QMoE"}
    assert not {"MatMulNBits", "QMoE"} & {node.op_type for node in new.graph.node if node.domain != DOMAIN}
    for node in moved:
        node.domain = "com.microsoft"
    assert [one.domain for one in new.opset_import if one not in old.opset_import] == [DOMAIN]
    new.opset_import.pop()
    assert new == old


def test_what_the_kernels_do_not_compute_stays() -> None:
    rng = np.random.default_rng(0)
    unrounded = product(rng, 8, 16, 16, accuracy_level=0)
    two_bits = product(rng, 8, 16, 16).replace(b"\n\x04bits\x18\x08", b"\n\x04bits\x18\x02")
    shifted = onnx.load_from_string(product(rng, 8, 16, 16))
    shifted.graph.node[0].input.append("s")  # zero points
    for model in (unrounded, two_bits, shifted.SerializeToString()):
        assert native_nodes(with_native_nodes(model)) == []
    assert len(native_nodes(with_native_nodes(product(rng, 8, 16, 16)))) == 1


@needs_native
def test_a_runner_says_whose_kernels_compute_and_both_agree(tmp_path: Path) -> None:
    made = export(LIGHTNING, fresh_seed(), tmp_path, ExportOptions(quantize="int8"))
    limits = EngineLimits(2, 40, 20, threads=1)
    runners = [OnnxRunner(made.artefact, limits, kernels=name) for name in (None, "native", "onnxruntime")]
    assert [one.choices["kernels"] for one in runners] == ["native", "native", "onnxruntime"]
    assert runners[0].choices["kernels_reason"].startswith("by ")
    tokens = np.random.default_rng(fresh_seed()).integers(0, LIGHTNING.vocab_size, 20).tolist()
    found = [one.step([SequenceStep(0, 0, tokens, wanted=20)]) for one in runners]
    np.testing.assert_array_equal(found[0], found[1])
    off = np.abs(found[0] - found[2]).max(1) / np.abs(found[2]).max()
    assert np.median(off) < 0.02  # a value between two levels, or an expert between two, goes on into what follows
    assert (found[0] != found[2]).any()  # they are others
    for one in runners:
        one.close()


def without(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    if what == "compiler":
        monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    else:
        monkeypatch.setattr(native_operators, "processor_features", lambda: "flags : avx2 avx512f")


@pytest.mark.parametrize(
    ("lacking", "said"), [("compiler", "there is no C++ compiler"), ("vnni", "this processor has no avx512_vnni")]
)
def test_where_they_cannot_be_had_onnxruntimes_serve_and_it_is_said(
    lacking: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(LIGHTNING, 0, tmp_path, ExportOptions(quantize="int8"))
    if lacking == "compiler":  # on a processor that could
        monkeypatch.setattr(native_operators, "processor_features", lambda: "flags : avx512_vnni")
    without(monkeypatch, lacking)
    limits = EngineLimits(1, 40, 20, threads=1)
    runner = OnnxRunner(made.artefact, limits)
    assert runner.choices["kernels"] == "onnxruntime"
    assert said in runner.choices["kernels_reason"]
    placed = OnnxRuntimeBackend().placement(made.artefact)
    assert placed["kernels_reason"] == runner.choices["kernels_reason"]
    with pytest.raises(CapabilityError, match=f"{re.escape(said)}.*kernels=onnxruntime"):
        OnnxRunner(made.artefact, limits, kernels="native")


def test_an_artefact_that_is_not_quantised_has_none(tmp_path: Path) -> None:
    made = export(LIGHTNING, 0, tmp_path)
    assert OnnxRunner(made.artefact, EngineLimits(1, 40, 20)).choices["kernels"] == "onnxruntime"
    with pytest.raises(CapabilityError, match="nothing in the artefact is quantised"):
        OnnxRunner(made.artefact, EngineLimits(1, 40, 20), kernels="native")


@pytest.mark.parametrize(("asked", "said"), [("natve", "did you mean 'native'"), ("", "choose native or onnxruntime")])
def test_other_kernels_are_refused(asked: str, said: str) -> None:
    with pytest.raises(CapabilityError, match=said):
        choose_kernels(asked, CPU, quantized=True)


def test_another_provider_has_its_own() -> None:
    chosen = choose_kernels(None, "CUDAExecutionProvider", quantized=True)
    assert (chosen.native, chosen.compiled()[1]) == (False, None)
    assert "CUDAExecutionProvider" in chosen.reason


@needs_native
def test_a_compiler_that_fails_leaves_onnxruntimes_unless_ours_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = export(LIGHTNING, 0, tmp_path, ExportOptions(quantize="int8"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_build, "find_compiler", lambda: native_build.Compiler("/bin/false", "one that fails"))
    limits = EngineLimits(1, 40, 20, threads=1)
    runner = OnnxRunner(made.artefact, limits)
    assert runner.choices["kernels"] == "onnxruntime"
    assert "one that fails failed" in runner.choices["kernels_reason"]
    assert runner.step([SequenceStep(0, 0, [1, 2])]).shape == (1, LIGHTNING.vocab_size)
    with pytest.raises(CapabilityError, match=r"one that fails failed.*kernels=onnxruntime"):
        OnnxRunner(made.artefact, limits, kernels="native")


_LOAD = """
import sys
from pathlib import Path
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.runner import EngineLimits

for _ in range(5):
    OnnxRunner(Path(sys.argv[1]), EngineLimits(1, 40, 20), kernels="native").close()
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in status if line.startswith("RssAnon")))
"""


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory of a process")
def test_memory_is_given_back(tmp_path: Path) -> None:
    wide = LIGHTNING.model_copy(update={"vocab_size": 32_768, "hidden_size": 256, "tie_word_embeddings": False})
    made = export(wide, 0, tmp_path, ExportOptions(quantize="int8"))
    done = subprocess.run([sys.executable, "-c", _LOAD, str(made.artefact)], capture_output=True, text=True, check=True)
    first, *_, last = map(int, done.stdout.split())
    assert last - first < 1024, done.stdout  # kB; the head alone has 8 MB
