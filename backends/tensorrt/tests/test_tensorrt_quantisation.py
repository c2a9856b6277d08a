"""What weights are rounded to, and how 4 bits lie in bytes."""

from __future__ import annotations

import pytest
import torch
from onnx import TensorProto, numpy_helper

from fulmen_backend_tensorrt.quantisation import LARGEST_FP8, block_of, form_of, pack, quantise, restore


@pytest.mark.parametrize(("form", "steps"), [("int8", 127), ("int4", 7)])
def test_a_weight_in_whole_numbers_is_off_by_half_a_step_at_most(form: str, steps: int) -> None:
    weight = torch.randn(3, 10, 96) * torch.tensor([1e-2, 1.0, 30.0])[:, None, None]
    rounded = quantise(weight, -1, "float32", form)  # type: ignore[arg-type]
    blocks = weight.unflatten(-1, (rounded.scale.shape[-1], -1))
    step = blocks.abs().amax(-1, keepdim=True) / steps
    off = (restore(rounded) - weight).abs().unflatten(-1, (rounded.scale.shape[-1], -1))
    assert bool((off <= step * 0.5001).all())
    assert int(rounded.values.abs().max()) == steps


def test_a_weight_in_8_bit_floats_is_off_by_a_sixteenth_at_most() -> None:
    weight = torch.randn(40, 96)
    rounded = quantise(weight, -1, "float32", "fp8")
    assert float(rounded.values.float().abs().max()) == LARGEST_FP8
    # below 2^-6 of a scale steps no longer shrink
    bound = torch.maximum(weight.abs() / 16, rounded.scale * 2.0**-10)
    assert bool(((restore(rounded) - weight).abs() <= bound * 1.0001).all())


@pytest.mark.parametrize("form", ["int8", "int4", "fp8"])
def test_rows_of_zeros_stay_zeros(form: str) -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        rounded = quantise(torch.zeros(4, 32), -1, dtype, form)  # type: ignore[arg-type]
        assert not restore(rounded).any()


def test_two_values_a_byte_lie_as_onnx_has_them_or_a_half_of_the_row_each() -> None:
    values = torch.randint(-8, 8, (5, 24), dtype=torch.int8)
    proto = TensorProto(
        data_type=TensorProto.INT4, dims=values.shape, raw_data=pack(values, "adjoining").numpy().tobytes()
    )
    assert numpy_helper.to_array(proto).astype(int).tolist() == values.tolist()
    halves = pack(values, "halves").view(torch.int8).float()
    upper = (halves / 16).floor()
    lower = halves - 16 * upper
    lower = lower - 16 * (lower / 8).floor()
    assert torch.cat((lower, upper), -1).to(torch.int8).equal(values)


def test_4_bits_are_for_what_opens_a_feed_forward_network_and_divides_into_blocks() -> None:
    assert [block_of(inputs) for inputs in (4096, 48, 24, 20, 7)] == [32, 16, 8, 4, 1]
    assert form_of("blocks.0.ffn.gate_up.weight", 64, "int4") == "int4"
    assert form_of("blocks.0.ffn.gate_up.weight", 20, "int4") == "int8"
    assert form_of("blocks.0.ffn.down.weight", 64, "int4") == "int8"
    assert form_of("blocks.0.ffn.experts.gate_up_EGD", 64, "fp8", experts=True) == "int8"
    assert form_of("blocks.0.attention.q_proj.weight", 64, "fp8") == "fp8"
    assert form_of("embed.weight", 64, "fp8") == form_of("head.weight", 64, "fp8") == "int8"
    assert form_of("blocks.0.attention.q_proj.weight", 64, None) is None
