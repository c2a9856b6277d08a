"""The chunked loss of the head is the plain one, gradients included."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_trainer.linear_loss import CHUNK, linear_cross_entropy, token_losses


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2 * CHUNK + 3), st.integers(1, 9), st.integers(2, 40), st.integers(0, 2**31))
def test_value_and_gradients_equal_the_reference(tokens: int, width: int, vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, dtype=torch.float64, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, width, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    weights = torch.rand(tokens, dtype=torch.float64, generator=generator)

    loss = linear_cross_entropy(hidden, head, targets, weights)
    reference = (F.cross_entropy(hidden @ head.T, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(loss, reference)
    for ours, theirs in zip(
        torch.autograd.grad(3 * loss, (hidden, head)), torch.autograd.grad(3 * reference, (hidden, head)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_token_of_weight_zero_has_no_influence() -> None:
    hidden, head = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    loss = linear_cross_entropy(hidden, head, torch.randint(9, (6,)), weights)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(gradient[[1, 3]], torch.zeros(2, 4))


def test_token_losses_are_the_losses_of_the_tokens() -> None:
    hidden, head, targets = torch.randn(CHUNK + 5, 4), torch.randn(9, 4), torch.randint(9, (CHUNK + 5,))
    expected = F.cross_entropy(hidden @ head.T, targets, reduction="none")
    torch.testing.assert_close(token_losses(hidden, head, targets), expected)


def test_under_autocast_products_are_bfloat16_and_the_loss_is_float32() -> None:
    hidden, head = torch.randn(64, 32, requires_grad=True), torch.randn(50, 32, requires_grad=True)
    targets, weights = torch.randint(50, (64,)), torch.full((64,), 1 / 64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, head, targets, weights)
    torch.autograd.backward(loss)
    assert loss.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ head.T, targets), rtol=0.02, atol=0.02)
