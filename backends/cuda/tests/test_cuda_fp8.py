"""Products of 8-bit floats: exact in what they multiply, as close as 8 bits allow, and with the right gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_cuda.fp8 import LARGEST, Rows8, from_rows8, grouped_product8, to_rows8
from fulmen_backend_cuda.training_fp8_experts import grouped_in_fp8
from fulmen_core.model.experts import grouped
from fulmen_core.model.router import Routing

#: float8_e4m3fn keeps 3 bits behind the leading one: half of the last is 1/16 of a power of two.
HALF_BIT = 1 / 16


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(-20, 20), st.integers(0, 2**31))
def test_rounding_is_within_half_a_bit_of_every_value_down_to_subnormals(
    width: int, log_scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(7, width, generator=generator) * 2.0**log_scale
    rows = to_rows8(x)
    assert rows.x8.float().abs().max() == LARGEST  # each row's largest value takes the largest float
    subnormal_half_bit = 2.0**-10 * rows.scale[:, None]
    assert ((from_rows8(rows) - x).abs() <= torch.maximum(HALF_BIT * x.abs(), subnormal_half_bit) * 1.001).all()


def test_zeros_stay_zero() -> None:
    assert torch.equal(from_rows8(to_rows8(torch.zeros(3, 16))), torch.zeros(3, 16))


def test_the_product_is_that_of_the_values_the_rows_stand_for() -> None:
    torch.manual_seed(2)
    x, weight = to_rows8(torch.randn(48, 32)), to_rows8(torch.randn(3, 16, 32))
    ends = torch.tensor([16, 16, 48], dtype=torch.int32)
    got = grouped_product8(x, weight, ends, torch.float32)
    x_RI, weight_EOI = from_rows8(x), from_rows8(weight)
    expected = torch.cat((x_RI[:16] @ weight_EOI[0].T, x_RI[16:] @ weight_EOI[2].T))
    torch.testing.assert_close(got, expected)


def routing(tokens: int, experts: int, top_k: int) -> Routing:
    logits = torch.randn(tokens, experts, requires_grad=True)
    weights, selected = logits.softmax(-1).topk(top_k)
    return Routing(logits, selected, weights)


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(50, 8, 3), (1, 4, 2), (7, 16, 1)])
def test_experts_and_their_gradients_are_within_the_rounding_of_exact_ones(
    tokens: int, experts: int, top_k: int
) -> None:
    torch.manual_seed(tokens)
    route = routing(tokens, experts, top_k)
    inputs = [torch.randn(tokens, 32), torch.randn(experts, 96, 32) * 32**-0.5, torch.randn(experts, 48, 32) * 48**-0.5]
    results = []
    for function in (grouped, grouped_in_fp8):
        x, gate_up, down = (one.clone().requires_grad_() for one in inputs)
        y = function(x, gate_up, down, route)
        grads = torch.autograd.grad(
            (y * torch.linspace(-1, 1, 32)).sum(), (x, gate_up, down, route.logits_NE), retain_graph=True
        )
        results.append((y.detach(), *grads))
    for name, exact, rounded in zip(("y", "x", "gate_up", "down", "router"), *results, strict=True):
        error = (rounded - exact).norm() / exact.norm()
        assert 0 < error < 0.12, f"{name}: {error:.3f}"


def test_the_last_gradient_of_a_weight_is_not_rounded_to_8_bits() -> None:
    """One product alone: its weight's gradient is that of the exact product, bit for bit."""
    from fulmen_backend_cuda.training_fp8_experts import _product

    torch.manual_seed(5)
    x, weight = torch.randn(32, 16), torch.randn(2, 48, 16, requires_grad=True)
    ends = torch.tensor([16, 32], dtype=torch.int32)
    grad_RO = torch.randn(32, 48)
    (got,) = torch.autograd.grad(_product(x, weight, ends), weight, grad_RO)
    expected = torch.stack([grad_RO[part].T @ x[part] for part in (slice(0, 16), slice(16, 32))])
    torch.testing.assert_close(got, expected)


@pytest.mark.gpu
def test_the_kernel_multiplies_what_its_emulation_does(gpu: torch.device) -> None:
    from fulmen_backend_cuda.backend import CudaBackend

    if "fp8" not in CudaBackend().capabilities().quantizations:
        pytest.skip("this GPU has no grouped products of 8-bit floats")
    torch.manual_seed(3)
    x, weight = to_rows8(torch.randn(96, 64)), to_rows8(torch.randn(4, 128, 64))
    ends = torch.tensor([16, 16, 64, 96], dtype=torch.int32)
    expected = grouped_product8(x, weight, ends, torch.float32)
    got = grouped_product8(
        Rows8(*(part.to(gpu) for part in x)), Rows8(*(part.to(gpu) for part in weight)), ends.to(gpu), torch.float32
    )
    torch.testing.assert_close(got.cpu(), expected, atol=0.05, rtol=0.02)
