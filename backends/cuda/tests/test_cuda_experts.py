"""Every form of the experts computes the same, and none that waits for the host is put into a CUDA graph."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_cuda.experts import formulation, gathered, needs_host
from fulmen_backend_cuda.support import EMULATED, Support, support_of
from fulmen_core.model.experts import dense, grouped
from fulmen_core.model.router import Routing


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.sampled_from([(4, 1), (8, 3), (16, 16)]), st.integers(0, 2**31))
def test_gathered_experts_equal_the_other_forms(tokens: int, shape: tuple[int, int], seed: int) -> None:
    experts, top_k = shape
    torch.manual_seed(seed)
    weights, selected = torch.randn(tokens, experts).softmax(-1).topk(top_k)
    route = Routing(torch.zeros(tokens, experts), selected, weights)
    x, gate_up, down = torch.randn(tokens, 16), torch.randn(experts, 48, 16), torch.randn(experts, 24, 16)
    expected = dense(x, gate_up, down, route)
    torch.testing.assert_close(gathered(x, gate_up, down, route), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(grouped(x, gate_up, down, route), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("support", "dtype", "tokens", "name", "host"),
    [
        (support_of((9, 0)), torch.bfloat16, 1, "grouped", False),
        (support_of((9, 0)), torch.bfloat16, 4096, "grouped", False),
        (support_of((10, 3)), torch.bfloat16, 4096, "grouped", False),
        (support_of((9, 0)), torch.float16, 2, "gathered", False),
        (support_of((8, 0)), torch.bfloat16, 2, "gathered", False),
        (support_of((12, 0)), torch.bfloat16, 64, "dense", False),
        (support_of((8, 9)), torch.bfloat16, 512, "grouped", True),
        (EMULATED, torch.float32, 512, "grouped", False),
    ],
)
def test_the_form_follows_what_the_gpu_has_kernels_for(
    support: Support, dtype: torch.dtype, tokens: int, name: str, host: bool
) -> None:
    assert formulation(tokens, 8, 64, dtype, support) == name
    assert needs_host(tokens, 8, 64, dtype, support) == host
