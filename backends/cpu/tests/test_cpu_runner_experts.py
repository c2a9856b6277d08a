"""The expert formulations of the CPU runner agree, and the choice between them follows the number of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_cpu.experts import chosen, fastest
from fulmen_core.model.experts import dense
from fulmen_core.model.router import Routing


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**31))
def test_chosen_experts_one_by_one_equal_all_experts_weighted(tokens: int, experts: int, top_k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(tokens, 12, dtype=torch.float64, generator=generator)
    gate_up_EGD = torch.randn(experts, 10, 12, dtype=torch.float64, generator=generator)
    down_EFD = torch.randn(experts, 5, 12, dtype=torch.float64, generator=generator)
    logits_NE = torch.randn(tokens, experts, dtype=torch.float64, generator=generator)
    weights_NK, selected_NK = logits_NE.softmax(-1).topk(min(top_k, experts))
    routing = Routing(logits_NE, selected_NK, weights_NK)
    y_ND = chosen(x_ND, gate_up_EGD, down_EFD, routing)
    torch.testing.assert_close(y_ND, dense(x_ND, gate_up_EGD, down_EFD, routing), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "choices"),
    [
        (torch.float32, {1: "chosen", 7: "chosen", 8: "grouped", 512: "grouped"}),
        (torch.bfloat16, {1: "chosen", 8: "dense", 64: "dense", 512: "grouped"}),
    ],
)
def test_one_token_takes_its_experts_and_a_prompt_groups_them(dtype: torch.dtype, choices: dict[int, str]) -> None:
    assert {tokens: fastest(tokens, 8, (64, 256, 512), dtype) for tokens in choices} == choices
