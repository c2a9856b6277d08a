"""Block masks say what the core's masks say, block by block as FlexAttention's own constructor would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from fulmen_backend_cuda.block_masks import block_mask, build_block_mask, dense_mask
from fulmen_backend_cuda.training_attention import attend
from fulmen_core.model.attention import attend as attend_by_torch
from fulmen_core.model.masks import build_mask, first_keys

CPU = torch.device("cpu")


def segments(batch: int, tokens: int, seed: int) -> torch.Tensor:
    """Documents of random lengths, the last one padding."""
    generator = torch.Generator().manual_seed(seed)
    begins = torch.rand(batch, tokens, generator=generator) < 0.1
    ids = begins.cumsum(1)
    return torch.where(ids == ids.amax(1, keepdim=True), -1, ids)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.one_of(st.none(), st.integers(1, 80)),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([4, 16]),
    st.integers(0, 2**31),
)
def test_blocks_are_those_of_flex_attentions_own_constructor(
    tokens: int, window: int | None, batch: int, block: int, seed: int
) -> None:
    ids = segments(batch, tokens, seed) if batch else None
    ours = block_mask(first_keys(tokens, window, ids, CPU), block)
    theirs = create_block_mask(ours.mask_mod, max(batch, 1), None, tokens, tokens, "cpu", BLOCK_SIZE=block)
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for kind in ("", "full_"):
        counts, mine, other = (
            getattr(ours, f"{kind}kv_num_blocks"),
            getattr(ours, f"{kind}kv_indices"),
            getattr(theirs, f"{kind}kv_indices"),
        )
        listed = torch.arange(mine.shape[-1]) < counts[..., None]
        assert torch.equal(mine[listed], other[listed])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 50)), st.sampled_from([0, 2]), st.integers(0, 2**31))
def test_attention_and_its_gradients_equal_the_cores(tokens: int, window: int | None, batch: int, seed: int) -> None:
    ids = segments(batch, tokens, seed) if batch else None
    torch.manual_seed(seed)
    rows = max(batch, 1)
    results = []
    inputs = [torch.randn(rows, tokens, heads, 16, dtype=torch.float64) for heads in (4, 2, 2)]
    for build, function in ((build_mask, attend_by_torch), (build_block_mask, attend)):
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        o = function(q, k, v, build(tokens, window, ids, CPU))
        o.square().sum().backward()
        results.append((o.detach(), q.grad, k.grad, v.grad))
    for expected, got in zip(*results, strict=True):
        assert expected is not None
        assert got is not None
        torch.testing.assert_close(got, expected)


def test_without_window_and_documents_there_is_no_mask() -> None:
    assert build_block_mask(12, None, None, CPU) is None
    assert build_block_mask(12, 12, None, CPU) is None
    assert isinstance(build_block_mask(12, 11, None, CPU), BlockMask)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_over_the_mask_equals_attention_over_its_pairs() -> None:
    torch.manual_seed(0)
    ids = segments(2, 50, 7)
    mask = block_mask(first_keys(50, 9, ids, CPU), 16)
    q, k, v = (torch.randn(2, heads, 50, 16) for heads in (4, 2, 2))
    flexed = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    expected = attend_by_torch(*(x.transpose(1, 2) for x in (q, k, v)), dense_mask(mask)).transpose(1, 2)
    torch.testing.assert_close(flexed, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("window", "documents"), [(None, True), (200, False), (200, True)])
def test_flex_attention_on_the_gpu_equals_the_cores_attention(
    gpu: torch.device, dtype: torch.dtype, window: int | None, documents: bool
) -> None:
    tokens = 700
    ids = segments(2, tokens, 3).to(gpu) if documents else None
    torch.manual_seed(1)
    inputs = [torch.randn(2, tokens, heads, 64, device=gpu, dtype=dtype) for heads in (8, 2, 2)]

    def results(build: Callable[..., Any], function: Callable[..., Any], wide: torch.dtype) -> list[torch.Tensor]:
        q, k, v = (x.to(wide, copy=True).requires_grad_() for x in inputs)
        o = function(q, k, v, build(tokens, window, ids, gpu))
        o.to(torch.promote_types(wide, torch.float32)).square().sum().backward()
        return [o.detach(), q.grad, k.grad, v.grad]

    exact = results(build_mask, attend_by_torch, torch.float64)
    plain = results(build_mask, attend_by_torch, dtype)
    flexed = results(build_block_mask, attend, dtype)
    for right, own, got in zip(exact, plain, flexed, strict=True):
        assert got.dtype is dtype
        if dtype is torch.float32:
            torch.testing.assert_close(got.double(), right, atol=5e-3, rtol=5e-3)
            continue
        # 16 bits of one form are as good as those of the other, however large the gradients of a token with few keys.
        assert (got - right).norm() < 2 * (own - right).norm()
        assert (got - right).abs().max() < 3 * (own - right).abs().max()
