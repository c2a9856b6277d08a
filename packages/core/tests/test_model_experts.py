"""Both formulations of the experts are exact, train every expert, and never read memory that nobody wrote."""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_core.model.balance import balance_losses
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.experts import Experts
from fulmen_core.model.presets import load_preset
from fulmen_core.model.router import Router, Routing
from fulmen_core.model.transformer import Transformer

IMPLEMENTATIONS: tuple[Literal["grouped", "dense"], ...] = ("grouped", "dense")


def config(**changes: Any) -> ModelConfig:
    sizes = {"hidden_size": 16, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    return load_preset("nano").model_copy(update=sizes | changes)


def experts(seed: int, **changes: Any) -> Experts:
    torch.manual_seed(seed)
    made = Experts(config(**changes))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def routing(selected_NK: Tensor, dtype: torch.dtype = torch.float32) -> Routing:
    weights_NK = torch.rand(selected_NK.shape, dtype=dtype).requires_grad_()
    return Routing(torch.zeros(len(selected_NK), 8, dtype=dtype), selected_NK, weights_NK)


def results(made: Experts, x_ND: Tensor, route: Routing, name: Literal["grouped", "dense"]) -> list[Tensor]:
    made.implementation = name
    x_ND = x_ND.detach().requires_grad_()
    y_ND = made(x_ND, route)
    ramp = torch.linspace(-1, 1, y_ND.numel(), dtype=y_ND.dtype).view_as(y_ND)
    return [y_ND, *torch.autograd.grad((y_ND * ramp).sum(), (x_ND, route.weights_NK, *made.parameters()))]


@given(tokens=st.integers(1, 40), top_k=st.integers(1, 8), used=st.integers(1, 8), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_grouped_equals_dense_also_with_experts_that_got_no_token(
    tokens: int, top_k: int, used: int, seed: int
) -> None:
    made = experts(seed).double()
    top_k = min(top_k, used)
    selected_NK = torch.stack([torch.randperm(used)[:top_k] for _ in range(tokens)])
    route, x_ND = routing(selected_NK, torch.float64), torch.randn(tokens, 16, dtype=torch.float64)

    for a, b in zip(*(results(made, x_ND, route, name) for name in IMPLEMENTATIONS), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_near_float64(dtype: torch.dtype) -> None:
    made = experts(5)
    selected_NK = torch.stack([torch.randperm(8)[:2] for _ in range(200)])
    route, x_ND = routing(selected_NK, torch.float64), torch.randn(200, 16).double()
    exact = results(experts(5).double(), x_ND, route, "dense")

    lower = Routing(*(t.detach().to(dtype) if t.is_floating_point() else t for t in route))
    lower.weights_NK.requires_grad_()
    rounded = results(made.to(dtype), x_ND.to(dtype), lower, "grouped")

    for a, b in zip(rounded, exact, strict=True):
        assert (a.double() - b).norm() / b.norm() < 8 * torch.finfo(dtype).eps


def poison(sizes: list[int]) -> None:
    """Leave freed blocks full of NaN where the allocator will look first."""
    blocks = [torch.full((size,), torch.nan) for size in sizes for _ in range(20)]
    del blocks


def test_the_poison_reaches_uninitialised_rows() -> None:
    # The control of the next test: with offsets that end early, the last rows' gradient is whatever the memory held.
    x_MD, weight_EDO = torch.randn(64, 16, requires_grad=True), torch.randn(4, 16, 16, requires_grad=True)
    poison([64 * 16] * 3)
    ends_E = torch.tensor([8, 16, 24, 32], dtype=torch.int32)
    y_MO = F.grouped_mm(x_MD, weight_EDO, offs=ends_E)
    poison([64 * 16] * 3)
    torch.autograd.backward(y_MO, torch.ones_like(y_MO))
    assert x_MD.grad is not None
    assert x_MD.grad[32:].isnan().any()
    assert x_MD.grad[:32].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_poisoned_memory_reaches_neither_outputs_nor_gradients(dtype: torch.dtype) -> None:
    made = experts(1).to(dtype)
    made.implementation = "grouped"
    sizes = [64 * 16, 128 * 16, 128 * 8, 576 * 16, 576 * 8, 8 * 16 * 16]
    for _ in range(3):
        x_ND = torch.randn(64, 16, dtype=dtype, requires_grad=True)
        route = routing(torch.stack([torch.randperm(5)[:2] for _ in range(64)]))
        poison(sizes)
        y_ND = made(x_ND, route)
        poison(sizes)
        y_ND.sum().backward()  # an expanded gradient, which the products themselves would refuse
        for tensor in (y_ND, x_ND.grad, *(parameter.grad for parameter in made.parameters())):
            assert tensor is not None
            assert tensor.isfinite().all()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("recompute", ["none", "experts", "blocks"])
def test_every_expert_of_every_layer_moves_in_one_step(name: Literal["grouped", "dense"], recompute: Any) -> None:
    torch.manual_seed(2)
    model = Transformer(load_preset("nano"))
    model.set_experts_implementation(name)
    before = {key: value.clone() for key, value in model.state_dict().items() if "experts" in key or "router" in key}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    tokens_BT = torch.randint(0, 1024, (4, 200))

    output = model(tokens_BT[:, :-1], recompute=recompute)
    loss = F.cross_entropy(model.logits(output.hidden_BTD).flatten(0, 1), tokens_BT[:, 1:].flatten())
    torch.autograd.backward(loss + balance_losses(output.router, model.config.balance, 2).total)
    optimizer.step()

    after = model.state_dict()
    for key, weight in before.items():
        moved_E = (after[key] != weight).flatten(1).any(1)
        assert moved_E.all(), f"{key}: experts {(~moved_E).nonzero().flatten().tolist()} did not move"


@pytest.mark.parametrize("low", ["autocast", "weights"])
def test_the_router_decides_in_float32_under_bfloat16(low: str) -> None:
    torch.manual_seed(0)
    router = Router(config())
    torch.nn.init.normal_(router.weight)
    if low == "weights":
        router = router.bfloat16()
    x_ND = torch.randn(300, 16).bfloat16()

    with torch.autocast("cpu", torch.bfloat16, enabled=low == "autocast"):
        decided = router(x_ND)

    exact = F.linear(x_ND.float(), router.weight.float())
    assert decided.logits_NE.dtype == decided.weights_NK.dtype == torch.float32
    assert torch.equal(decided.logits_NE, exact)
    assert torch.equal(decided.selected_NK, exact.softmax(-1).topk(2).indices)


@pytest.mark.parametrize("normalise", [True, False])
def test_weights_are_the_top_probabilities_and_sum_to_one_if_normalised(normalise: bool) -> None:
    torch.manual_seed(0)
    router = Router(config(norm_topk_prob=normalise))
    torch.nn.init.normal_(router.weight)
    decided = router(torch.randn(50, 16))
    top_NK = decided.logits_NE.softmax(-1).topk(2).values
    expected_NK = top_NK / top_NK.sum(1, keepdim=True) if normalise else top_NK
    torch.testing.assert_close(decided.weights_NK, expected_NK)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_whole_network_compiles_without_a_graph_break(name: Literal["grouped", "dense"]) -> None:
    # aot_eager traces forward and backward as inductor does, without its minutes of C++.
    torch.manual_seed(0)
    model = Transformer(load_preset("nano").model_copy(update={"num_hidden_layers": 3, "layer_pattern": "SFF"}))
    model.set_experts_implementation(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens_BT, segments_BT = torch.randint(0, 1024, (2, 96)), (torch.arange(96) // 40).repeat(2, 1)
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            run(tokens_BT, segments_BT=segments_BT).hidden_BTD.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[0].norm()


def test_an_unknown_formulation_is_refused() -> None:
    with pytest.raises(ValueError, match="grouped, dense"):
        Transformer(load_preset("nano")).set_experts_implementation("sparse")  # type: ignore[arg-type]
