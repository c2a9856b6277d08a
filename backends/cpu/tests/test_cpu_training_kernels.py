"""Each compiled operation of a training step equals plain autograd in float64: results, gradients, edges and all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_backend_cpu.training_cross_entropy import native_cross_entropy
from fulmen_backend_cpu.training_experts import native_grouped
from fulmen_backend_cpu.training_kernels import load_kernels
from fulmen_backend_cpu.training_norm import native_norm_and_rotate, native_rms_norm
from fulmen_backend_cpu.training_operations import native_operations
from fulmen_core.model.attention import norm_and_rotate
from fulmen_core.model.balance import balance_losses
from fulmen_core.model.cross_entropy import cross_entropy
from fulmen_core.model.experts import grouped
from fulmen_core.model.norm import RMSNorm, rms_norm
from fulmen_core.model.operations import Operations
from fulmen_core.model.presets import load_preset
from fulmen_core.model.rope import rotary
from fulmen_core.model.router import Routing
from fulmen_core.model.transformer import Transformer
from fulmen_core.native_build import NativeUnavailable

try:
    load_kernels()
except NativeUnavailable as error:
    pytest.skip(f"no compiled kernels here: {error}", allow_module_level=True)

LOW = [torch.float32, torch.bfloat16]


def assert_near_float64(
    native: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: Sequence[Tensor], dtype: torch.dtype
) -> None:
    """Result and gradients of `native` on `inputs` rounded to `dtype` are near those of `plain` in float64."""
    found, exact = [], []
    for function, kind, to in ((plain, torch.float64, exact), (native, dtype, found)):
        leaves = [x.to(dtype).to(kind).requires_grad_() for x in inputs]
        y = function(*leaves)
        # By the exact result: with random weights a small gradient may cancel to less than the rounding of its terms.
        weights = exact[0] if exact else y
        to += [y, *torch.autograd.grad(y, leaves, weights.detach().to(y.dtype))]
    for a, b in zip(found, exact, strict=True):
        assert (a.double() - b).norm() <= 16 * torch.finfo(dtype).eps * b.norm() + 1e-12


def random_segments(rows: int, tokens: int, seed: int) -> Tensor:
    begins = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed)) < 0.05
    return begins.cumsum(1)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_normalisation(dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 70, 48), torch.rand(48)
    if dtype is torch.float32:
        assert_near_float64(lambda *a: native_rms_norm(*a, 1e-6), lambda *a: rms_norm(*a, 1e-6), (x, weight), dtype)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = native_rms_norm(x, weight, 1e-6)
    assert y.dtype is dtype
    y.float().square().sum().backward()
    exact = torch.autograd.grad(rms_norm(x.double(), weight.double(), 1e-6).square().sum(), (x, weight))
    for a, b in zip((x.grad, weight.grad), exact, strict=True):
        assert a is not None
        assert (a - b).norm() < 8 * torch.finfo(dtype).eps * b.norm()


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("rows", [1, 2], ids=["positions of all rows", "positions a row"])
def test_heads_of_a_projection_are_normalised_and_rotated(dtype: torch.dtype, normed: bool, rows: int) -> None:
    positions = torch.randint(0, 500, (rows, 37))

    def function(operation: Any) -> Callable[..., Tensor]:
        def run(x: Tensor, weight: Tensor) -> Tensor:
            norm = RMSNorm(32, 1e-6)
            del norm.weight
            norm.weight = weight.float() if weight.dtype is not torch.float64 else weight  # type: ignore[assignment]
            wide = torch.float64 if x.dtype is torch.float64 else torch.float32
            cos, sin = (angle.to(wide) for angle in rotary(positions, 32, 10_000.0, torch.float64))
            heads = torch.unflatten(x[..., :96], -1, (3, 32))  # beside something else, as keys lie beside values
            y: Tensor = operation(heads, norm if normed else None, cos, sin)
            return y if normed else y + 0 * weight.sum().to(y.dtype)

        return run

    assert_near_float64(
        function(native_norm_and_rotate),
        function(norm_and_rotate),
        (torch.randn(2, 37, 192), torch.rand(32) + 0.5),
        dtype,
    )


@given(tokens=st.integers(1, 90), top_k=st.integers(1, 4), used=st.integers(1, 8), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_experts_also_those_that_got_no_token(
    dtype: torch.dtype, tokens: int, top_k: int, used: int, seed: int
) -> None:
    torch.manual_seed(seed)
    top_k = min(top_k, used)
    selected_NK = torch.stack([torch.randperm(used)[:top_k] for _ in range(tokens)])
    inputs = torch.randn(tokens, 32), torch.randn(8, 32, 32) / 5, torch.randn(8, 16, 32) / 4, torch.rand(tokens, top_k)

    def function(operation: Any) -> Callable[..., Tensor]:
        def run(x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor) -> Tensor:
            y: Tensor = operation(x, gate_up, down, Routing(x.new_zeros(tokens, 8), selected_NK, weights))
            return y

        return run

    assert_near_float64(function(native_grouped), function(grouped), inputs, dtype)


def test_experts_on_two_threads_are_those_on_one() -> None:
    x, gate_up, down = torch.randn(300, 32), torch.randn(8, 32, 32) / 5, torch.randn(8, 16, 32) / 4
    selected_NK = torch.stack([torch.randperm(7)[:3] for _ in range(300)])  # the last expert gets no token
    leaves = [tensor.bfloat16().requires_grad_() for tensor in (x, gate_up, down)]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y = native_grouped(*leaves, Routing(x.new_zeros(300, 8), selected_NK, torch.full((300, 3), 0.5)))
        found.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * float(a.detach().abs().max()))


def test_a_fault_on_a_thread_is_raised_where_the_threads_were_started() -> None:
    def part() -> None:
        raise ArithmeticError

    torch.set_num_threads(2)
    with pytest.raises(ArithmeticError):
        load_kernels().on_each_thread(part)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_cross_entropy(dtype: torch.dtype) -> None:
    logits, targets, weights = 3 * torch.randn(50, 64).to(dtype), torch.randint(64, (50,)), torch.rand(50)
    weights[7] = 0
    exact_loss, exact = cross_entropy(logits.double(), targets, weights.double())
    loss, gradient = native_cross_entropy(logits, targets, weights)
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-5, atol=0)
    assert gradient.dtype is dtype
    assert (gradient.double() - exact).norm() < torch.finfo(dtype).eps * exact.norm()
    assert torch.equal(gradient[7], torch.zeros(64, dtype=dtype))


def test_a_step_of_the_optimizer_is_seen_by_the_next_forward_pass() -> None:
    # The fused AdamW writes to weights without telling autograd: a cast that is kept would never be made anew.
    gate_up, down = (torch.nn.Parameter(torch.randn(8, rows, 32)) for rows in (32, 16))
    x, routing = torch.randn(20, 32), Routing(torch.zeros(20, 8), torch.randint(8, (20, 2)), torch.rand(20, 2))
    optimizer = torch.optim.AdamW([gate_up, down], lr=1.0, fused=True)
    with torch.autocast("cpu", torch.bfloat16):
        native_grouped(x, gate_up, down, routing).sum().backward()
        optimizer.step()
        found, exact = (f(x, gate_up, down, routing) for f in (native_grouped, grouped))
    assert (found - exact).norm() < 0.05 * exact.norm()


def network(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(load_preset("nano").model_copy(update={"num_hidden_layers": 4, "layer_pattern": "SF"}))


def gradients(model: Transformer, tokens: Tensor, segments: Tensor, recompute: Any = "none") -> Tensor:
    model.zero_grad()
    output = model(tokens, segments_BT=segments, recompute=recompute)
    loss = output.hidden_BTD.float().square().mean()
    torch.autograd.backward(loss + balance_losses(output.router, model.config.balance, 2).total)
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def test_a_network_has_the_gradients_that_it_has_with_torch_alone() -> None:
    model, tokens, segments = network(), torch.randint(1024, (2, 130)), random_segments(2, 130, 1)
    found = []
    for operations in (Operations(), native_operations()):
        model.use(operations)
        found.append(gradients(model, tokens, segments))
    assert (found[0] - found[1]).norm() < 1e-5 * found[0].norm()


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", ["experts", "blocks"])
def test_recomputation_changes_no_bit_of_the_gradients(low: bool, recompute: str) -> None:
    model, tokens, segments = network(), torch.randint(1024, (2, 130)), random_segments(2, 130, 1)
    model.use(native_operations())
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        assert torch.equal(gradients(model, tokens, segments), gradients(model, tokens, segments, recompute))


def poison() -> None:
    """Leave freed blocks full of NaN where the allocator will look first."""
    blocks = [torch.full((2**size,), torch.nan) for size in range(8, 18) for _ in range(8)]
    del blocks


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_memory_that_nobody_wrote_is_never_read(low: bool) -> None:
    model, tokens, segments = network(), torch.randint(1024, (2, 75)), random_segments(2, 75, 2)
    model.use(native_operations())
    for _ in range(3):
        poison()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            output = model(tokens, segments_BT=segments)
            poison()
            loss = output.hidden_BTD.float().square().mean()
            torch.autograd.backward(loss)
        assert output.hidden_BTD.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_every_expert_of_every_layer_moves_in_one_step() -> None:
    model = network(2)
    model.use(native_operations())
    before = {key: value.clone() for key, value in model.state_dict().items() if "experts" in key or "router" in key}
    with torch.autocast("cpu", torch.bfloat16):
        gradients(model, torch.randint(1024, (4, 200)), random_segments(4, 200, 3))
    torch.optim.SGD(model.parameters(), lr=1e3).step()
    after = model.state_dict()
    for key, weight in before.items():
        moved_E = (after[key] != weight).flatten(1).any(1)
        assert moved_E.all(), f"{key}: experts {(~moved_E).nonzero().flatten().tolist()} did not move"


def test_results_do_not_depend_on_the_number_of_threads_of_the_kernels() -> None:
    x, weight = torch.randn(500, 64, requires_grad=True), torch.rand(64, requires_grad=True)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(torch.autograd.grad(native_rms_norm(x, weight, 1e-6).square().sum(), (x, weight)))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


WITHOUT_COMPILER = """
import logging, sys
sys.path.insert(0, sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import test_cpu_training as t
model = t.Transformer(t.config())
program = t.prepare(model)
t.train(model, program, range(1))
print(program.choices["kernels"])
"""


def test_without_a_compiler_training_runs_on_torch_alone_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(Path(__file__).parent)],
        env={**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    warning, choice = done.stdout.splitlines()
    assert warning.startswith("training runs without compiled kernels, slower: there is no C++ compiler")
    assert choice.startswith("torch: there is no C++ compiler")
