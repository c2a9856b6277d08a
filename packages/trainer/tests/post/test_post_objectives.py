"""The losses equal their formulas, and no split of a batch changes a loss or its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_trainer.log_probs import sample_log_probs, token_log_probs
from fulmen_trainer.objectives import (
    bradley_terry_loss,
    dpo_loss,
    dpo_margins,
    fine_tuning_loss,
    sample_weights,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_every_sample_weighs_the_same_however_long_it_is(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    log_probs = [-torch.rand(size, dtype=torch.float64) for size in sizes]
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    loss = fine_tuning_loss(torch.cat(log_probs), owners, sample_weights(torch.tensor(sizes)).double())
    assert loss.item() == pytest.approx(float(np.mean([-part.mean().item() for part in log_probs])), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_shares_of_a_split_batch_add_up(count: int, cut: int, seed: int) -> None:
    cut = min(cut, count - 1)
    torch.manual_seed(seed)
    policy, reference = torch.randn(count, 2, dtype=torch.float64), torch.randn(count, 2, dtype=torch.float64)
    whole = dpo_loss(policy, reference, 0.3, count)
    split = dpo_loss(policy[:cut], reference[:cut], 0.3, count) + dpo_loss(policy[cut:], reference[cut:], 0.3, count)
    assert split.item() == pytest.approx(whole.item(), rel=1e-12)
    scores = torch.randn(count, 2, dtype=torch.float64)
    whole = bradley_terry_loss(scores[:, 0], scores[:, 1], count)
    split = bradley_terry_loss(scores[:cut, 0], scores[:cut, 1], count) + bradley_terry_loss(
        scores[cut:, 0], scores[cut:, 1], count
    )
    assert split.item() == pytest.approx(whole.item(), rel=1e-12)


def test_equal_scores_cost_log_two_and_a_margin_raises_the_cost() -> None:
    zeros = torch.zeros(3)
    assert bradley_terry_loss(zeros, zeros, 3).item() == pytest.approx(math.log(2))
    assert bradley_terry_loss(zeros, zeros, 3, margin=1.0).item() == pytest.approx(math.log(1 + math.e))


def test_a_policy_equal_to_its_reference_has_no_margin_and_is_pushed_apart() -> None:
    policy = torch.tensor([[-3.0, -2.0]], requires_grad=True)
    chosen, rejected = dpo_margins(policy, policy.detach(), 0.5)
    assert chosen.item() == rejected.item() == 0.0
    dpo_loss(policy, policy.detach(), 0.5, 1).backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == [[pytest.approx(-0.25), pytest.approx(0.25)]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_chunked_log_probs_have_the_same_values_and_gradients(count: int, chunk: int, seed: int) -> None:
    torch.manual_seed(seed)
    hidden_BTD = torch.randn(3, 11, 6, dtype=torch.float64)
    weight_VD = torch.randn(17, 6, dtype=torch.float64)
    scored_N, targets_N = torch.randperm(33)[:count], torch.randint(0, 17, (count,))

    def run(size: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = hidden_BTD.clone().requires_grad_(), weight_VD.clone().requires_grad_()
        values = token_log_probs(hidden, scored_N, targets_N, lambda part: part @ weight.T, chunk=size)
        (values * torch.linspace(1, 2, count, dtype=torch.float64)).sum().backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        return values.detach(), hidden.grad, weight.grad

    for ours, whole in zip(run(chunk), run(10**6), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)
    expected = torch.log_softmax(hidden_BTD.flatten(0, 1)[scored_N] @ weight_VD.T, -1)
    torch.testing.assert_close(run(chunk)[0], expected[torch.arange(count), targets_N])


def test_log_probs_of_a_sample_add_up_over_its_tokens_only() -> None:
    sums = sample_log_probs(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([2, 0, 2]), 4)
    assert sums.tolist() == [-2.0, 0.0, -5.0, 0.0]
