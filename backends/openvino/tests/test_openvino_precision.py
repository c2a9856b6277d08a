"""16, 8 and 4 bits, of weights, arithmetic and caches: as near to the model as they promise, judged token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset15
from openvino.properties import hint

from fulmen_backend_openvino.backend import OpenVinoBackend
from fulmen_backend_openvino.compiling import core
from fulmen_backend_openvino.exporter import OpenVinoExporter
from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_backend_openvino.weights import Weights, bfloat16_bits
from fulmen_core.backend import Dtype, KVDtype, Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.export.verdict import DIVERGENCE, fault
from fulmen_testing.exporter.exported import Exported

from .conftest import LIGHTNING, export

#: As a trained model's are: logits of a few nats, and inputs of products that divide into groups of 32 and 64.
TAME = LIGHTNING.model_copy(
    update={"initializer_range": 0.1, "hidden_size": 64, "num_hidden_layers": 4, "head_dim": 32}
)
FORMS: tuple[tuple[Dtype, Quantization | None], ...] = (
    ("bfloat16", None),
    ("float16", None),
    ("float32", "int8"),
    ("float32", "int4"),
    ("bfloat16", "int8"),
)


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(TAME, 1, tmp_path_factory.mktemp("tame"))


def constant_of(value: Any) -> np.ndarray:
    graph = openvino.Model([opset15.result(value)], [])
    config = {hint.inference_precision: openvino.Type.f32}
    computed: np.ndarray = core().compile_model(graph, "CPU", config)([])[0]
    return computed


@pytest.mark.parametrize(("dtype", "quantize"), FORMS)
def test_a_weight_is_at_most_half_a_step_from_itself(dtype: Dtype, quantize: Quantization | None) -> None:
    for shape in ((48, 64), (3, 61, 128), (5, 96)):
        weight = torch.randn(*shape) * torch.rand(*shape[:-1], 1)
        weight[..., 0, :] = 0  # an output that nobody trained
        weights = Weights(dtype, quantize)
        # of experts the down projection comes transposed
        for tensor in (weight, weight.transpose(-1, -2).contiguous().transpose(-1, -2)):
            found = constant_of(weights.matrix(tensor))
            largest = tensor.abs().amax(-1, keepdim=True).numpy()
            bound = {None: np.abs(tensor.numpy()) / 256, "int8": largest / 253, "int4": largest / 12}[quantize]
            assert (np.abs(found - tensor.numpy()) <= bound + 1e-7).all()


def test_rounding_to_bfloat16_is_torchs() -> None:
    numbers = torch.cat((torch.randn(1000), torch.tensor([0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3e38])))
    expected = numbers.bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(bfloat16_bits(numbers.numpy()), expected)


@pytest.mark.parametrize(("dtype", "quantize"), FORMS)
def test_an_artefact_keeps_its_promise_and_is_smaller(
    tame: Exported, tmp_path: Path, dtype: Dtype, quantize: Quantization | None
) -> None:
    options = ExportOptions(dtype=dtype, quantize=quantize)
    out = tmp_path / "artefact"
    manifest = OpenVinoExporter().export(tame.model, out, options)
    found = OpenVinoExporter().check(out, tame.model)
    assert not fault(found, manifest), found
    assert found["mean_kl"] > 1e-9  # it is not the one in float32
    bits = {None: 16, "int8": 8, "int4": 4}[quantize]
    size, whole = ((folder / "openvino_model.bin").stat().st_size for folder in (out, tame.artefact))
    # routers, norms and scales are not rounded; the embedding keeps 8 bits
    assert bits / 32 < size / whole < bits / 32 + 0.12


KV: tuple[tuple[Dtype, KVDtype], ...] = (
    ("float32", "float16"),
    ("float32", "int8"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "int8"),
)


@pytest.mark.parametrize(("dtype", "kv_dtype"), KV)
def test_caches_in_fewer_bits_stay_near_and_take_less(tame: Exported, dtype: Dtype, kv_dtype: KVDtype) -> None:
    if dtype not in OpenVinoBackend().capabilities().serve_dtypes:
        pytest.skip(f"OpenVINO does not compute in {dtype} on this CPU")
    reference = Reference.load(tame.artefact)
    limits = limits_for(reference)
    whole = OpenVinoRunner(tame.artefact, limits)
    runner = OpenVinoRunner(tame.artefact, limits, dtype, kv_dtype=kv_dtype)
    assert runner.choices["kv_dtype"] == kv_dtype
    found = compare(runner, reference)
    assert 1e-10 < found["mean_kl"] < DIVERGENCE["bfloat16" if dtype == "bfloat16" else "float16"]
    assert runner.kv_bytes() <= whole.kv_bytes() * (0.5 if kv_dtype != "int8" else 0.35)


def test_a_cache_that_the_kernels_do_not_know_is_refused(tame: Exported) -> None:
    with pytest.raises(CapabilityError, match="bfloat16 beside arithmetic in float32: use float32 or float16 or int8"):
        OpenVinoRunner(tame.artefact, limits_for(Reference.load(tame.artefact)), kv_dtype="bfloat16")
