"""Training: two steps of a prepared model move its weights as the model's own mathematics in float64 says.

Legend: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fulmen_core.backend import Dtype, TrainPlan
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_testing.backend.bench import DTYPES, Bench
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.models import DENSE, EXPERTS_LAST, LIGHTNING, random_model
from fulmen_testing.reference import Reference

#: How far gradients may lie from float64: the norm of the difference over that of all gradients together.
TOLERANCE: dict[str, float] = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.1}
#: So many times that, where in fewer bits than 32 some tokens go to other experts.
FLIPS = 3
#: PyTorch itself errs by less than this part of the tolerance where anything can be told: a few models are so sensitive
#: that its own rounding is more.
TELLING = 0.75


class TrainingClaims(BackendTrial):
    """A backend that lists `train` computes the gradients of the model."""

    @pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_two_steps_follow_the_gradients(self, bench: Bench, dtype: Dtype, experts: bool) -> None:
        """Loss and gradients of two steps, in every dtype that is listed, are those of float64"""
        if dtype not in bench.capabilities.train_dtypes:
            pytest.skip("it does not train in it" if bench.capabilities.train else "it does not list train")
        config = (LIGHTNING if dtype == "float32" else EXPERTS_LAST) if experts else DENSE
        exact = _prepared(random_model(config, bench.seed).double())
        exact.set_experts_implementation("dense")
        model, plain = (_prepared(random_model(config, bench.seed)) for _ in range(2))
        program = bench.backend.prepare_training(model, TrainPlan(dtype=dtype))
        tolerance = TOLERANCE[dtype] * (FLIPS if experts and dtype != "float32" else 1)
        for step in range(2):
            tokens_BT, expected = _telling_tokens(exact, plain, dtype, tolerance, bench.seed + step)
            got = _loss(program.model, model, program.autocast(), tokens_BT)
            assert abs(got - expected) < tolerance * max(1.0, abs(expected)), f"seed {bench.seed}"
            assert _error(model, exact) < tolerance, f"step {step}, seed {bench.seed}, {config!r}"
            for one in (model, plain, exact):
                _descend(one)

    def test_documents_do_not_see_one_another(self, bench: Bench) -> None:
        """In a row of several documents, none attends to another"""
        if not bench.capabilities.train:
            pytest.skip("it does not list train")
        model = random_model(LIGHTNING, bench.seed)
        program = bench.backend.prepare_training(model, TrainPlan(dtype=bench.capabilities.train_dtypes[0]))
        device = next(model.parameters()).device
        tokens_BT = _tokens(LIGHTNING, bench.seed)[:, :-1]
        segments_BT = (torch.arange(tokens_BT.shape[1]) >= 20).int().expand_as(tokens_BT)
        other_BT = tokens_BT.clone()
        other_BT[:, :20] = (other_BT[:, :20] + 1) % LIGHTNING.vocab_size
        with torch.no_grad(), program.autocast():
            one, two = (
                program.model(tokens.to(device), segments_BT=segments_BT.to(device)).hidden_BTD[:, 20:].float()
                for tokens in (tokens_BT, other_BT)
            )
        assert torch.equal(one, two) or float((one - two).abs().max()) < 1e-5

    def test_the_plan_is_followed_and_told(self, bench: Bench) -> None:
        """What "auto" became is told, and the parameters stay the model's own"""
        if not bench.capabilities.train:
            pytest.skip("it does not list train")
        model = random_model(LIGHTNING, bench.seed)
        before = {name: id(parameter) for name, parameter in model.named_parameters()}
        program = bench.backend.prepare_training(model, TrainPlan())
        assert program.choices.get("dtype") in bench.capabilities.train_dtypes
        assert all(isinstance(value, str) for value in program.choices.values())
        assert {id(parameter) for parameter in program.model.parameters()} == set(before.values())


def _prepared(model: Transformer) -> Transformer:
    return copy.deepcopy(model).requires_grad_(True).train()


def _telling_tokens(
    exact: Transformer, plain: Transformer, dtype: Dtype, tolerance: float, seed: int
) -> tuple[Tensor, float]:
    """Draw tokens whose gradients PyTorch itself finds in `dtype`, and run both models on them; also the exact loss."""
    for attempt in range(20):
        tokens_BT = _settled_tokens(exact, seed + 1_000_000 * attempt)
        expected = _loss(exact, exact, nullcontext(), tokens_BT)
        _loss(plain, plain, _autocast(dtype), tokens_BT)
        if _error(plain, exact) < TELLING * tolerance:
            break
    return tokens_BT, expected


def _settled_tokens(exact: Transformer, seed: int) -> Tensor:
    """Draw tokens none of which a router tosses a coin over: a flipped expert is no rounding error."""
    reference = Reference(exact)
    for attempt in range(50):
        tokens_BT = _tokens(exact.config, seed + 1000 * attempt)
        if all(reference.logits(row[:-1])[1].all() for row in tokens_BT.tolist()):
            break
    return tokens_BT


def _tokens(config: ModelConfig, seed: int) -> Tensor:
    return torch.randint(config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(seed))


def _autocast(dtype: Dtype) -> AbstractContextManager[object]:
    """Return what lets PyTorch itself compute in `dtype`."""
    return nullcontext() if dtype == "float32" else torch.autocast("cpu", getattr(torch, dtype))


def _error(model: Transformer, exact: Transformer) -> float:
    """Return how far the gradients lie from those of `exact`, over the norm of all."""
    difference, size = 0.0, 0.0
    for (name, parameter), other in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), f"{name} has a gradient in one of them alone"
        if parameter.grad is not None and other.grad is not None:
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
            difference += float((parameter.grad.cpu().double() - other.grad).square().sum())
            size += float(other.grad.square().sum())
    return math.sqrt(difference / size)


def _loss(
    forward: torch.nn.Module, model: Transformer, precision: AbstractContextManager[object], tokens_BT: Tensor
) -> float:
    """Run one row of tokens and leave the gradients in the parameters."""
    tokens_BT = tokens_BT.to(next(model.parameters()).device)
    with precision:
        logits_BTV = model.logits(forward(tokens_BT[:, :-1]).hidden_BTD)
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    return float(loss.detach())


@torch.no_grad()
def _descend(model: Transformer) -> None:
    """Move the weights a little, however steep the slope is."""
    moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.stack([parameter.grad.norm() for parameter in moved if parameter.grad is not None]).norm()
    for parameter in moved:
        assert parameter.grad is not None
        parameter.add_(parameter.grad, alpha=-0.1 / float(norm))
