"""The balance losses are the report's formulas, for each reading of its token sets."""

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_core.model.balance import BalanceLosses, balance_losses
from fulmen_core.model.config import BalanceConfig
from fulmen_core.model.router import RouterStatistics

TokenSet = Literal["routed", "resident", "aggregate"]
Score = Literal["softmax", "sigmoid"]


def by_loops(
    logits_NE: Tensor, selected_NK: Tensor, valid: list[bool], cells: int, token_set: TokenSet, score: Score
) -> float:
    """One loss per unit alpha, from the formulas; `cells` = 1 is L_ST."""
    weigh = torch.exp if score == "softmax" else torch.sigmoid
    probabilities = [[p / sum(row) for p in row] for row in weigh(logits_NE).tolist()]
    selected = [set(row) for row in selected_NK.tolist()]
    top_k, experts = selected_NK.shape[1], logits_NE.shape[1]
    batch = [x for x in range(len(selected)) if valid[x]]
    width = experts // cells

    def f(i: int, tokens: list[int]) -> float:
        return sum(i in selected[x] for x in tokens) / (top_k * len(tokens)) if tokens else 0.0

    def p(i: int, tokens: list[int]) -> float:
        return sum(probabilities[x][i] for x in tokens) / len(tokens) if tokens else 0.0

    total = 0.0
    for cell in range(cells):
        inside = range(cell * width, (cell + 1) * width)
        if token_set == "aggregate":
            total += cells * sum(f(i, batch) for i in inside) * sum(p(i, batch) for i in inside)
            continue
        tokens = batch if token_set == "resident" else [x for x in batch if selected[x] & set(inside)]
        total += width * sum(f(i, tokens) * p(i, tokens) for i in inside) / cells
    return total


def statistics(layers: list[Tensor], top_k: int, valid: Tensor | None = None) -> RouterStatistics:
    return RouterStatistics(tuple(layers), tuple(layer.topk(top_k).indices for layer in layers), valid)


@given(
    tokens=st.integers(1, 12),
    layers=st.integers(1, 3),
    top_k=st.integers(1, 4),
    shape=st.sampled_from([(1, 1, 4), (2, 1, 3), (2, 2, 2), (4, 2, 1)]),
    token_set=st.sampled_from(["routed", "resident", "aggregate"]),
    score=st.sampled_from(["softmax", "sigmoid"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_losses_equal_loops_over_the_formulas(
    tokens: int, layers: int, top_k: int, shape: tuple[int, int, int], token_set: TokenSet, score: Score, seed: int
) -> None:
    groups, partitions, width = shape
    generator = torch.Generator().manual_seed(seed)
    logits = [
        2 * torch.randn(tokens, groups * partitions * width, generator=generator, dtype=torch.float64)
        for _ in range(layers)
    ]
    valid_N = torch.rand(tokens, generator=generator) < 0.8
    valid_N[0] = True
    config = BalanceConfig(
        switch_alpha=0.1, group_alpha=0.2, partition_alpha=0.3, z_alpha=0.4,
        expert_groups=groups, partitions=partitions, token_set=token_set,
    )  # fmt: skip

    ours = balance_losses(statistics(logits, top_k, valid_N)._replace(score=score), config, top_k)

    def mean(cells: int, reading: TokenSet) -> float:
        valid = valid_N.tolist()
        rows = [by_loops(layer, layer.topk(top_k).indices, valid, cells, reading, score) for layer in logits]
        return sum(rows) / layers

    z = sum((layer[valid_N].logsumexp(-1) ** 2).mean().item() for layer in logits) / layers
    switch, group, partition = mean(1, "resident"), mean(groups, token_set), mean(groups * partitions, token_set)
    expected = (switch, group, partition, z)
    assert [value.item() for value in ours[1:]] == pytest.approx(expected, rel=1e-9)
    weighted = 0.1 * switch + 0.2 * group + 0.3 * partition + 0.4 * z
    assert ours.total.item() == pytest.approx(layers * weighted, rel=1e-9)


def losses(logits_NE: Tensor, selected_NK: Tensor, **choices: Any) -> BalanceLosses:
    router = RouterStatistics((logits_NE,), (selected_NK,), None)
    return balance_losses(router, BalanceConfig(**choices), selected_NK.shape[1])


def even_routing(experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Uniform probabilities, and each expert selected equally often."""
    first = torch.arange(experts)[:, None]
    return torch.zeros(experts, experts), (first + torch.arange(top_k)) % experts


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_switch_loss_is_one_per_unit_alpha_at_perfect_balance(top_k: int) -> None:
    unit = losses(*even_routing(16, top_k), switch_alpha=1.0, group_alpha=0.0, partition_alpha=0.0)
    assert unit.switch.item() == pytest.approx(1.0)
    assert unit.total.item() == pytest.approx(1.0)


def test_even_routing_gives_each_token_set_the_value_its_reading_predicts() -> None:
    logits_NE, selected_NK = even_routing(16, 4)
    resident = losses(logits_NE, selected_NK, token_set="resident", expert_groups=4, partitions=2)
    assert resident.group.item() == pytest.approx((4 / 16) ** 2)
    assert resident.partition.item() == pytest.approx((2 / 16) ** 2)
    aggregate = losses(logits_NE, selected_NK, token_set="aggregate", expert_groups=4, partitions=2)
    assert aggregate.group.item() == pytest.approx(1.0)
    assert aggregate.partition.item() == pytest.approx(1.0)


def test_routed_losses_are_one_where_each_token_stays_inside_one_group_and_that_is_even() -> None:
    # 4 groups of 4: token x gives all its probability, evenly, and all its choices to one group.
    group_N = torch.arange(4).repeat_interleave(4)
    logits_NE = torch.full((16, 16), -1e9)
    selected = [[4 * g + (n + k) % 4 for k in range(2)] for n, g in enumerate(group_N.tolist())]
    for n, g in enumerate(group_N.tolist()):
        logits_NE[n, 4 * g : 4 * g + 4] = 0.0
    unit = losses(logits_NE, torch.tensor(selected), token_set="routed", expert_groups=4, partitions=1)
    assert unit.group.item() == pytest.approx(1.0)


def test_uneven_routing_costs_more_than_even_routing() -> None:
    even = losses(*even_routing(16, 4), token_set="aggregate")
    logits_NE = torch.zeros(16, 16)
    logits_NE[:, :4] = 3.0
    uneven = losses(logits_NE, logits_NE.topk(4).indices, token_set="aggregate")
    assert uneven.switch > 2 * even.switch
    assert uneven.group > 2 * even.group
    assert uneven.partition > 2 * even.partition


@pytest.mark.parametrize("token_set", ["routed", "resident", "aggregate"])
def test_gradients_reach_the_logits_only_through_the_probabilities(token_set: TokenSet) -> None:
    logits_NE = torch.randn(40, 16, dtype=torch.float64, requires_grad=True)
    router = statistics([logits_NE], 4)
    config = BalanceConfig(switch_alpha=1, group_alpha=1, partition_alpha=1, token_set=token_set)
    total = balance_losses(router, config, 4).total
    (gradient,) = torch.autograd.grad(total, logits_NE)

    # f is constant under a step too small to change any selection, so the slope along any direction is P's alone.
    direction = torch.randn_like(logits_NE)
    step = 1e-6
    moved = [RouterStatistics((logits_NE + s * direction,), router.selected, None) for s in (step, -step)]
    up, down = (balance_losses(m, config, 4).total for m in moved)
    assert ((up - down) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)
    assert not any(value.requires_grad for value in balance_losses(router, config, 4)[1:])


def test_the_reports_alphas_are_the_defaults() -> None:
    config = BalanceConfig()
    assert (config.switch_alpha, config.group_alpha, config.partition_alpha, config.z_alpha) == (1e-6, 1e-4, 1e-3, 0.0)


def test_a_batch_of_padding_alone_costs_nothing() -> None:
    router = statistics([torch.randn(5, 8)], 2, torch.zeros(5, dtype=torch.bool))
    assert balance_losses(router, BalanceConfig(z_alpha=1.0), 2).total.item() == 0.0


def test_experts_that_do_not_divide_into_partitions_are_refused() -> None:
    with pytest.raises(ValueError, match="12 experts do not divide into 8 partitions"):
        balance_losses(statistics([torch.randn(5, 12)], 2), BalanceConfig(expert_groups=4, partitions=2), 2)
