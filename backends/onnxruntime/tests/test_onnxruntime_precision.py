"""Weights in half precision and quantised: what the artefact computes is what such weights compute, and nothing else.

Legend: T tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.block_quantization import Bits, block_size, dequantize, quantize
from fulmen_backend_onnxruntime.exporter import _QUANTIZATIONS, OnnxExporter
from fulmen_backend_onnxruntime.products import WeightFormat, dense_block
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_backend_onnxruntime.smoothing import Smoothing
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits
from fulmen_testing.agreement import answer, assert_equal
from fulmen_testing.models import fresh_seed, random_model, save_random_model
from fulmen_testing.player import Sequence

from .conftest import FAMILIES, LIGHTNING, export, family
from .mixed_steps import drive

LIMITS = EngineLimits(max_sequences=4, max_step_tokens=60, max_context=90, threads=1)
#: How far off half of the tokens may be, as a share, in models of 32 columns, where errors of rounding average little.
ROUNDED_INPUT = 0.15


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 4]), st.sampled_from([16, 32, 128]), st.integers(1, 200))
def test_quantised_values_are_within_half_a_step_of_their_block(seed: int, bits: Bits, block: int, inputs: int) -> None:
    weight_NK = np.random.default_rng(seed).normal(size=(3, inputs)).astype(np.float32)
    quantized = quantize(weight_NK, bits, block)
    found_NK = dequantize(quantized, bits, inputs)
    step_NK = np.repeat(np.abs(quantized.scales), block, 1)[:, :inputs]
    # of 4 bits, the value opposite to the largest has no level: it may be off by one step
    assert (np.abs(found_NK - weight_NK) <= step_NK * (0.501 if bits == 8 else 1.001)).all()
    largest = np.abs(weight_NK).argmax(1)
    rows = np.arange(3)
    np.testing.assert_allclose(found_NK[rows, largest], weight_NK[rows, largest], rtol=1e-5)


def test_zeros_stay_zeros() -> None:
    for bits in (8, 4):
        assert not dequantize(quantize(np.zeros((2, 40), np.float32), bits, 16), bits, 40).any()


@pytest.mark.parametrize("bits", [8, 4])
def test_the_operator_computes_with_the_same_values(bits: Bits) -> None:
    random = np.random.default_rng()
    weight_NK, x_MK = (random.normal(size=shape).astype(np.float32) for shape in ((24, 100), (5, 100)))
    data, scales = quantized = quantize(weight_NK, bits, 32)
    node = onnx.helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        N=24,
        K=100,
        bits=bits,
        block_size=32,
        accuracy_level=0,  # inputs as they are
    )
    initializers = [onnx.numpy_helper.from_array(data, "w"), onnx.numpy_helper.from_array(scales, "s")]
    values = [onnx.helper.make_tensor_value_info(name, 1, ["m", size]) for name, size in (("x", 100), ("y", 24))]
    graph = onnx.helper.make_graph([node], "product", values[:1], values[1:], initializers)
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [found_MN] = session.run(None, {"x": x_MK})
    np.testing.assert_allclose(found_MN, x_MK @ dequantize(quantized, bits, 100).T, atol=1e-4)


def test_blocks_divide_what_they_must() -> None:
    assert block_size((1024, 192), 128) == 64
    assert block_size((24,), 128) is None


def test_products_have_the_longest_block_that_divides_their_inputs() -> None:
    form = WeightFormat("float32", 8, block=64, longest=256)
    assert [dense_block(inputs, form) for inputs in (2816, 1152, 576, 100)] == [256, 128, 64, 64]


def rounded(directory: Path, dtype: str, bits: Bits | None, block: int) -> Transformer:
    """The model in float64 with the weights that an artefact keeps."""
    network = load_model(directory)
    config = network.config
    smoothing = Smoothing.of(network) if bits == 8 else Smoothing.none()
    longest = WeightFormat("float32", bits, *_QUANTIZATIONS["int8" if bits == 8 else "int4"][1:3])

    def as_kept(weight_NK: torch.Tensor, bits: Bits, block: int) -> torch.Tensor:
        array = weight_NK.detach().numpy()
        return torch.from_numpy(dequantize(quantize(array, bits, block), bits, array.shape[-1]))

    def of_network(name: str) -> int:
        """The block of a dense network: of shared experts in 8 bits, one that divides both widths, if there is one."""
        state = network.state_dict()
        rows = state[name.replace("gate_up", "down")]
        shared = block_size(tuple(rows.shape), block) if bits == 8 and ".shared." in name else None
        return shared or dense_block(state[name].shape[1], longest)

    inner = block_size((config.hidden_size, config.moe_intermediate_size or config.hidden_size), block or 16)
    head = "embed.weight" if config.tie_word_embeddings else "head.weight"
    for name, weight in network.state_dict().items():
        if bits == 8:
            weight.copy_(torch.from_numpy(smoothing.smoothed(name, weight.numpy())))
        if bits is None:
            stays = "norm" in name or "router" in name
            kept = weight if stays or dtype == "float32" else weight.half().float()
        elif name.endswith("_EGD"):
            assert inner is not None
            kept = as_kept(weight, bits, inner)
        elif name.endswith("down_EFD"):
            assert inner is not None
            mixed = weight.transpose(1, 2) * config.router_scale  # what multiplies the mix is rounded with it
            kept = as_kept(mixed, bits, inner).transpose(1, 2) / config.router_scale
        elif "gate_up" in name:
            kept = as_kept(weight, bits, of_network(name))
        elif "down.weight" in name:
            kept = as_kept(weight, 8, of_network(name))
        elif name == "embed.weight" == head:
            kept = as_kept(weight, 8, block)
        elif any(part in name for part in ("_proj", head)):
            kept = as_kept(weight, 8, dense_block(weight.shape[1], longest))
        else:
            kept = weight
        weight.copy_(kept)
    network = network.double()
    network.set_experts_implementation("dense")
    return network


def errors(network: Transformer, played: list[Sequence], tie: float = 0.02) -> NDArray[np.float64]:
    """How far each token's logits are off, as a share of their length, but for tokens that may choose other experts."""
    found = []
    for sequence in played:
        exact = answer(network, sequence.tokens)
        for position, logits_V in sequence.logits.items():
            if exact.margin_T[position] >= tie:
                exact_V = exact.logits_TV[position]
                found.append(float(np.linalg.norm(logits_V - exact_V) / np.linalg.norm(exact_V)))
    return np.array(found)


def play(config: ModelConfig, folder: Path, options: ExportOptions) -> tuple[Path, list[Sequence], str]:
    made = export(config, fresh_seed(), folder, options)
    played = drive(OnnxRunner(made.artefact, LIMITS), steps=15)
    return made.model, played, made.label


@pytest.mark.parametrize("name", ["llama", "olmoe", "afmoe"])
def test_half_precision_keeps_weights_and_caches_in_16_bits_and_adds_no_other_error(name: str, tmp_path: Path) -> None:
    model, played, label = play(family(name), tmp_path, ExportOptions(dtype="float16"))
    found = errors(rounded(model, "float16", None, 0), played)
    assert len(found) > 2, label
    assert np.median(found) < 0.003, label  # of keys and values
    graph = onnx.load(tmp_path / "artefact" / "model.onnx", load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    assert kinds["past_key_values.0.key"] == onnx.TensorProto.FLOAT16
    assert OnnxRunner(tmp_path / "artefact", LIMITS)._kv.arrays[0][0].dtype == np.float16


@pytest.mark.parametrize(("quantize_to", "bits", "block"), [("int8", 8, 64), ("int4", 4, 32)])
@pytest.mark.parametrize("name", [*FAMILIES, "lightning", "wide"])
def test_quantised_weights_compute_what_they_are(
    name: str, quantize_to: Quantization, bits: Bits, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("products", "experts"):  # inputs as they are, so that nothing but weights is rounded
        monkeypatch.setattr(f"fulmen_backend_onnxruntime.{module}.ROUNDED_INPUT", 0)
    monkeypatch.setenv("ORT_QMOE_CPU_QNBIT_GEMM", "0")
    wide = {"hidden_size": 256, "intermediate_size": 384}  # blocks of 256 and 128
    families = {"lightning": LIGHTNING, "wide": family("mistral").model_copy(update=wide)}
    config = families[name] if name in families else family(name)
    model, played, label = play(config, tmp_path, ExportOptions(quantize=quantize_to))
    assert_equal(rounded(model, "float32", bits, block), played, label, tolerance=1e-3, tie=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("quantize_to", "bits", "block"), [("int8", 8, 64), ("int4", 4, 32)])
@pytest.mark.parametrize("name", ["llama", "afmoe", "lightning"])
def test_rounding_the_inputs_of_products_costs_little(
    name: str, quantize_to: Quantization, bits: Bits, block: int, dtype: Dtype, tmp_path: Path
) -> None:
    config = LIGHTNING if name == "lightning" else family(name)
    model, played, label = play(config, tmp_path, ExportOptions(dtype=dtype, quantize=quantize_to))
    found = errors(rounded(model, dtype, bits, block), played)
    assert len(found) > 2, label
    assert np.median(found) < ROUNDED_INPUT, label


def test_a_head_that_is_the_embedding_is_stored_once(tmp_path: Path) -> None:
    tied = LIGHTNING.model_copy(update={"vocab_size": 4096, "hidden_size": 128})
    apart = tied.model_copy(update={"tie_word_embeddings": False})
    table = tied.vocab_size * tied.hidden_size
    for options, element in (
        (ExportOptions(), 4),
        (ExportOptions(dtype="float16"), 2),
        (ExportOptions(quantize="int8"), 1),
        (ExportOptions(quantize="int4"), 1),
    ):
        sizes = []
        for config in (tied, apart):
            folder = tmp_path / f"{options.dtype}-{options.quantize}-{config.tie_word_embeddings}"
            folder.mkdir()
            artefact = export(config, 0, folder, options).artefact
            sizes.append((artefact / "model.onnx.data").stat().st_size)
        # apart, the embedding is kept as it is, and the head has fewer scales than a table that both are
        scales = 4 * (table // 64 - table // 128) if options.quantize == "int8" else 0
        assert sizes[1] - sizes[0] + scales >= table * max(element, 4 if options.quantize else 0), options


@pytest.mark.parametrize("name", ["llama", "afmoe"])
def test_a_smaller_artefact_is_smaller(name: str, tmp_path: Path) -> None:
    config = family(name).model_copy(update={"hidden_size": 128, "vocab_size": 256, "intermediate_size": 256})
    sizes = {}
    for label, options in (
        ("float32", ExportOptions()),
        ("float16", ExportOptions(dtype="float16")),
        ("int8", ExportOptions(dtype="float16", quantize="int8")),
        ("int4", ExportOptions(dtype="float16", quantize="int4")),
    ):
        (tmp_path / label).mkdir()
        sizes[label] = (export(config, 0, tmp_path / label, options).artefact / "model.onnx.data").stat().st_size
    assert sizes["float32"] > 1.8 * sizes["float16"]
    assert sizes["float16"] > 1.3 * sizes["int8"]
    assert sizes["int8"] > 1.1 * sizes["int4"]


def test_what_cannot_be_kept_so_is_refused_by_name(tmp_path: Path) -> None:
    narrow = family("mixtral").model_copy(update={"moe_intermediate_size": 24})
    save_random_model(narrow, 0, tmp_path / "narrow")
    large = random_model(family("llama"), 0)
    large.state_dict()["blocks.1.ffn.down.weight"][3, 5] = 70_000
    (tmp_path / "large").mkdir()
    save_model(large, tmp_path / "large")
    for model, options, sentence in (
        ("narrow", ExportOptions(quantize="int8"), "experts of 32 x 24 cannot be quantised in blocks"),
        ("large", ExportOptions(dtype="float16"), "layers.1/ffn.down holds values that float16 cannot"),
        ("large", ExportOptions(dtype="bfloat16"), "neither products nor attention in bfloat16"),
        ("large", ExportOptions(max_sequences=3), "--max-sequences means nothing to the exporter onnx"),
    ):
        with pytest.raises(CapabilityError, match=sentence):
            OnnxExporter().export(tmp_path / model, tmp_path / "out", options)
        assert not (tmp_path / "out").exists()
