"""Attention of a training step, in both compiled forms, is attention in float64: results, gradients, every edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_backend_cpu import training_attention, training_attention_products
from fulmen_backend_cpu.training_attention import native_attend
from fulmen_backend_cpu.training_attention_fused import attend_fused
from fulmen_backend_cpu.training_attention_products import attend_by_products
from fulmen_backend_cpu.training_kernels import choose_panels, load_kernels
from fulmen_core.model.attention import attend
from fulmen_core.model.masks import FirstKeys, build_mask, first_keys
from fulmen_core.native_build import NativeUnavailable

try:
    load_kernels()
except NativeUnavailable as error:
    pytest.skip(f"no compiled kernels here: {error}", allow_module_level=True)

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
FORMS = [(attend_fused, torch.bfloat16), (attend_by_products, torch.bfloat16), (attend_by_products, torch.float32)]
every_form = pytest.mark.parametrize(("form", "dtype"), FORMS, ids=["fused", "products", "products in float32"])
HERE = torch.device("cpu")


def random_segments(rows: int, tokens: int, seed: int, rate: float = 0.05) -> Tensor:
    return (torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed)) < rate).cumsum(1)


def both_ways(form: Attend, inputs: Sequence[Tensor], mask: Any, grad: Tensor) -> list[Tensor]:
    """The result and the gradients of queries, keys and values for that of the result."""
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    o = form(q, k, v, mask)
    return [o.detach(), *torch.autograd.grad(o, (q, k, v), grad.to(o.dtype))]


def assert_exact(
    form: Attend, dtype: torch.dtype, inputs: Sequence[Tensor], window: int | None, segments: Tensor | None
) -> None:
    """Result and gradients of `form` on `inputs` rounded to `dtype` are near those of plain attention in float64."""
    inputs = [x.to(dtype) for x in inputs]
    grad, tokens = torch.randn(inputs[0].shape).to(dtype), inputs[0].shape[1]
    exact = both_ways(attend, [x.double() for x in inputs], build_mask(tokens, window, segments, HERE), grad.double())
    found = both_ways(form, inputs, first_keys(tokens, window, segments, HERE), grad)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype is dtype
        # The second term is for queries with few keys: what nearly cancels in their gradients was rounded before.
        assert (a.double() - b).norm() <= torch.finfo(dtype).eps * (8 * b.norm() + grad.double().norm() / 4)


@given(
    tokens=st.integers(1, 200),
    window=st.sampled_from([None, 1, 5, 16, 50, 64, 300]),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1), (6, 2)]),
    width=st.sampled_from([16, 32, 48, 64]),
    documents=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
@every_form
def test_attention(
    form: Attend,
    dtype: torch.dtype,
    tokens: int,
    window: int | None,
    heads: tuple[int, int],
    width: int,
    documents: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    segments = random_segments(2, tokens, seed) if documents else None
    inputs = [torch.randn(2, tokens, count, width) for count in (heads[0], heads[1], heads[1])]
    assert_exact(form, dtype, inputs, window, segments)


@given(
    tokens=st.integers(1, 200),
    window=st.sampled_from([None, 1, 5, 16, 50, 64, 300]),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    documents=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
@every_form
def test_gradients_by_the_result_vanish_where_the_exact_ones_do(
    form: Attend,
    dtype: torch.dtype,
    tokens: int,
    window: int | None,
    heads: tuple[int, int],
    documents: bool,
    seed: int,
) -> None:
    """A query that sees one key has no gradient, and few keys make small ones: nothing is left of what cancels."""
    torch.manual_seed(seed)
    segments = random_segments(2, tokens, seed) if documents else None
    inputs = [torch.randn(2, tokens, count, 16).to(dtype) for count in (heads[0], heads[1], heads[1])]
    mask, plain = first_keys(tokens, window, segments, HERE), build_mask(tokens, window, segments, HERE)
    wide = [x.double() for x in inputs]
    result = attend(*wide, plain)
    exact, found = both_ways(attend, wide, plain, result), both_ways(form, inputs, mask, result)
    for a, b in zip(found, exact, strict=True):
        assert (a.double() - b).norm() <= 16 * torch.finfo(dtype).eps * b.norm() + 1e-12


@pytest.mark.parametrize("documents", [False, True], ids=["one document", "documents"])
@every_form
def test_long_rows(form: Attend, dtype: torch.dtype, documents: bool) -> None:
    segments = random_segments(1, 2000, 4, 1 / 300) if documents else None
    assert_exact(form, dtype, [torch.randn(1, 2000, heads, 32) for heads in (2, 1, 1)], None, segments)


@pytest.mark.parametrize("width", [16, 32, 48, 64])
@pytest.mark.parametrize("start", [300, 315, 400])
def test_a_document_may_start_keys_after_those_that_its_strip_meets_first(width: int, start: int) -> None:
    segments = (torch.arange(420) >= start).long()[None]
    assert_exact(
        attend_fused, torch.bfloat16, [torch.randn(1, 420, heads, width) for heads in (2, 1, 1)], None, segments
    )


def test_a_running_softmax_forgets_what_later_scores_outweigh() -> None:
    growing = torch.linspace(0.1, 30, 700)[None, :, None, None]
    q, k, v = (torch.randn(1, 700, 2, 16) for _ in range(3))
    assert_exact(attend_fused, torch.bfloat16, (q.abs(), k.abs() * growing, v), None, None)


@every_form
def test_keys_and_values_may_be_parts_of_one_projection(form: Attend, dtype: torch.dtype) -> None:
    projection, q = torch.randn(2, 70, 4 * 32).to(dtype), torch.randn(2, 70, 4, 32).to(dtype)
    k, v = (torch.unflatten(part, -1, (2, 32)) for part in projection.chunk(2, dim=-1))
    mask = first_keys(70, 20, random_segments(2, 70, 5), HERE)
    expected = both_ways(form, (q, k.contiguous(), v.contiguous()), mask, q)
    for layout in (q, q.transpose(1, 2).contiguous().transpose(1, 2)):
        found = both_ways(form, (layout, k, v), mask, layout)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("window", [None, 40])
@every_form
def test_the_number_of_threads_changes_no_bit(form: Attend, dtype: torch.dtype, window: int | None, batch: int) -> None:
    inputs = [torch.randn(batch, 600, heads, 32).to(dtype) for heads in (2, 1, 1)]
    mask = first_keys(600, window, random_segments(batch, 600, 6, 0.01), HERE)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(both_ways(form, inputs, mask, inputs[0]))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@every_form
def test_what_lies_in_memory_beside_rows_is_never_read(form: Attend, dtype: torch.dtype) -> None:
    wide, q = torch.full((1, 37 + 64, 3 * 32), torch.nan, dtype=dtype), torch.randn(1, 37, 3, 32).to(dtype)
    wide[:, :37, 32:64] = 1.0
    part = torch.unflatten(wide[:, :37, 32:64], -1, (1, 32))
    for _ in range(2):
        blocks = [torch.full((2**size,), torch.nan) for size in range(8, 18) for _ in range(8)]
        del blocks
        for result in both_ways(form, (q, part, part), first_keys(37, 9, None, HERE), q):
            assert result.isfinite().all()


def test_other_documents_have_no_influence_at_all() -> None:
    segments = (torch.arange(90) >= 41).long()[None]
    mask = first_keys(90, None, segments, HERE)
    inputs = [torch.randn(1, 90, 2, 16).bfloat16() for _ in range(3)]
    changed = [torch.cat((torch.randn(1, 41, 2, 16).bfloat16(), x[:, 41:]), dim=1) for x in inputs]
    found, other = (both_ways(attend_fused, x, mask, inputs[0]) for x in (inputs, changed))
    assert all(torch.equal(a[:, 41:], b[:, 41:]) for a, b in zip(found, other, strict=True))


def test_attention_that_computes_its_weights_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = first_keys(150, None, random_segments(2, 150, 3), HERE)
    inputs = [torch.randn(2, 150, 2, 16) for _ in range(3)]
    results = []
    for kept in (1024, 100):
        monkeypatch.setattr(training_attention_products, "_KEPT_TOKENS", kept)
        results.append(both_ways(attend_by_products, inputs, mask, inputs[0]))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("window", [None, 7])
def test_first_keys_are_the_mask(window: int | None) -> None:
    segments = random_segments(2, 40, 5)
    first = first_keys(40, window, segments, HERE)
    at = torch.arange(40)
    expected = (at[:, None] >= at) & (segments[:, None, :, None] == segments[:, None, None, :])
    expected &= (at[:, None] - at) < (window or 40)
    assert isinstance(first, FirstKeys)
    assert torch.equal(first.seen(), expected)


@pytest.mark.parametrize(
    ("capabilities", "fused"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, False),
        ({"avx512_bf16": False, "avx512_f": True}, False),
        ({"architecture": "arm64"}, False),
    ],
)
def test_the_fused_form_is_for_vectors_that_multiply_bfloat16(capabilities: dict[str, Any], fused: bool) -> None:
    assert choose_panels(capabilities) is fused


@pytest.mark.parametrize("fused", [False, True])
def test_float32_always_takes_the_products_and_bfloat16_what_was_chosen(
    fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_attention, "panels_are_faster", lambda: fused)
    mask, inputs = first_keys(33, 8, None, HERE), [torch.randn(1, 33, 2, 16) for _ in range(3)]
    assert torch.equal(native_attend(*inputs, mask), attend_by_products(*inputs, mask))
    q, k, v = (x.bfloat16() for x in inputs)
    assert torch.equal(native_attend(q, k, v, mask), (attend_fused if fused else attend_by_products)(q, k, v, mask))
