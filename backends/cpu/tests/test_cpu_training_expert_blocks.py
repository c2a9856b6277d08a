"""The experts in blocks of rows equal plain autograd in float64, whoever got tokens, on any number of threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_backend_cpu import training_experts
from fulmen_backend_cpu.training_expert_blocks import experts_in_blocks
from fulmen_backend_cpu.training_experts import native_grouped
from fulmen_backend_cpu.training_kernels import load_kernels
from fulmen_backend_cpu.training_library_experts import experts_by_library
from fulmen_core.model.experts import grouped
from fulmen_core.model.router import Routing
from fulmen_core.native_build import NativeUnavailable

try:
    load_kernels()
except NativeUnavailable as error:
    pytest.skip(f"no compiled kernels here: {error}", allow_module_level=True)


def random_experts(
    tokens: int, width: int, inner: int, top_k: int, used: int, dtype: torch.dtype
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A selection among the first `used` of 8 experts; tokens, the two weights and the router's weights, as leaves."""
    selected_NK = torch.stack([torch.randperm(used)[:top_k] for _ in range(tokens)])
    leaves = (
        torch.randn(tokens, width).to(dtype),
        torch.randn(8, 2 * inner, width) / width**0.5,
        torch.randn(8, inner, width) / inner**0.5,
        torch.rand(tokens, top_k),
    )
    return selected_NK, tuple(leaf.requires_grad_() for leaf in leaves)


def in_blocks(selected_NK: Tensor, leaves: tuple[Tensor, ...]) -> Tensor:
    x_ND, gate_up_EGD, down_EFD, weights_NK = leaves
    return experts_in_blocks(x_ND, gate_up_EGD, down_EFD, selected_NK, weights_NK)


@given(
    tokens=st.integers(1, 400),
    sizes=st.sampled_from([(32, 16), (16, 48), (80, 32), (144, 96)]),
    top_k=st.integers(1, 4),
    used=st.integers(1, 8),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_results_and_gradients_are_those_of_float64(
    tokens: int, sizes: tuple[int, int], top_k: int, used: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    selected_NK, leaves = random_experts(tokens, *sizes, min(top_k, used), used, dtype)
    wide = tuple(leaf.detach().double().requires_grad_() for leaf in leaves)
    exact = grouped(*wide[:3], Routing(wide[0], selected_NK, wide[3]))
    found = in_blocks(selected_NK, leaves)
    # Weighted by the exact result: with random weights a small gradient may cancel to less than its terms' rounding.
    weights = exact.detach()
    pairs = [(found, exact)]
    pairs += zip(
        torch.autograd.grad(found, leaves, weights.float()), torch.autograd.grad(exact, wide, weights), strict=True
    )
    for a, b in pairs:
        assert (a.double() - b).norm() <= 4 * torch.finfo(torch.bfloat16).eps * b.norm() + 1e-12
    assert [a.dtype for a, _ in pairs] == [torch.float32, dtype, *3 * [torch.float32]]


@pytest.mark.parametrize("faster", [False, True])
def test_bfloat16_products_of_float32_weights_take_the_blocks_where_they_are_faster(
    faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_experts, "panels_are_faster", lambda: faster)
    selected_NK, (x_ND, gate_up_EGD, down_EFD, weights_NK) = random_experts(90, 32, 16, 2, 8, torch.float32)
    arguments = x_ND, gate_up_EGD, down_EFD, selected_NK, weights_NK
    expected = experts_in_blocks(*arguments) if faster else experts_by_library(*arguments, torch.bfloat16)
    routing = Routing(x_ND, selected_NK, weights_NK)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(native_grouped(x_ND, gate_up_EGD, down_EFD, routing), expected)
    exact = experts_by_library(*arguments, torch.float32)
    assert torch.equal(native_grouped(x_ND, gate_up_EGD, down_EFD, routing), exact)
    assert not torch.equal(expected, exact)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    selected_NK, leaves = random_experts(700, 144, 48, 3, 7, torch.bfloat16)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y = in_blocks(selected_NK, leaves)
        found.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_an_expert_without_tokens_gets_a_gradient_of_zeros_in_memory_that_held_others() -> None:
    selected_NK, leaves = random_experts(50, 32, 16, 2, 3, torch.bfloat16)
    blocks = [torch.full((2**size,), torch.nan) for size in range(6, 16) for _ in range(8)]
    del blocks
    gradients = torch.autograd.grad(in_blocks(selected_NK, leaves).sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(not gradient[3:].any() for gradient in gradients[1:3])
