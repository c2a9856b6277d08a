"""A query sees exactly the keys of its window and document, in every form of the mask, at a cost that follows w."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_core.model.attention import attend
from fulmen_core.model.masks import ChunkedMask, build_mask

CPU = torch.device("cpu")


def sees(query: int, key: int, window: int | None, ids: list[int]) -> bool:
    near = window is None or query - key < window
    return key <= query and near and ids[key] == ids[query]


def attend_by_loops(q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, window: int | None, segments_BT: Tensor) -> Tensor:
    batch, tokens, heads, width = q_BTHh.shape
    shared = heads // k_BTKh.shape[2]
    rows = []
    for b in range(batch):
        ids = segments_BT[b].tolist()
        for t in range(tokens):
            keys = [s for s in range(tokens) if sees(t, s, window, ids)]
            for head in range(heads):
                k, v = k_BTKh[b, keys, head // shared], v_BTKh[b, keys, head // shared]
                weights = torch.exp(k @ q_BTHh[b, t, head] / width**0.5)
                rows.append((weights / weights.sum()) @ v)
    return torch.stack(rows).view(batch, tokens, heads, width)


def random_qkv(batch: int, tokens: int, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, tokens, 4, 8), (batch, tokens, 2, 8), (batch, tokens, 2, 8))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@given(
    tokens=st.integers(1, 23),
    window=st.one_of(st.none(), st.integers(1, 25)),
    cuts=st.one_of(st.none(), st.lists(st.integers(1, 22), max_size=4)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_attention_equals_loops_for_any_window_and_documents(
    tokens: int, window: int | None, cuts: list[int] | None, seed: int
) -> None:
    segments_BT = torch.zeros(2, tokens, dtype=torch.int64)
    for cut in cuts or ():
        segments_BT[1, cut:] += 1
    q, k, v = random_qkv(2, tokens, seed)

    mask = build_mask(tokens, window, None if cuts is None else segments_BT, CPU)
    ours = attend(q, k, v, mask)
    theirs = attend_by_loops(q, k, v, window, segments_BT)

    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("packed", [False, True])
def test_bfloat16_window_attention_stays_within_its_precision(packed: bool) -> None:
    segments_BT = (torch.arange(70) // 30).expand(2, -1) if packed else torch.zeros(2, 70, dtype=torch.int64)
    q, k, v = random_qkv(2, 70, seed=3)
    mask = build_mask(70, 16, segments_BT if packed else None, CPU)

    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)

    assert isinstance(mask, ChunkedMask)
    exact = attend_by_loops(q, k, v, 16, segments_BT)
    assert (rounded.double() - exact).abs().max() < 0.05


def test_no_mask_is_built_where_no_window_bites_and_no_document_ends() -> None:
    assert build_mask(16, None, None, CPU) is None
    assert build_mask(16, 16, None, CPU) is None


@pytest.mark.parametrize("packed", [False, True])
def test_mask_memory_follows_the_window_not_the_square_of_the_length(packed: bool) -> None:
    def cells(tokens: int) -> int:
        mask = build_mask(tokens, 32, torch.zeros(1, tokens, dtype=torch.int64) if packed else None, CPU)
        assert isinstance(mask, ChunkedMask)
        return mask.first.numel() + mask.rest.numel()

    assert cells(4096) <= 2 * 32 * 4096
    assert cells(4096) <= 2 * cells(2048) + 2 * 32 * 32
