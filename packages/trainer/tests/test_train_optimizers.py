"""AdamW and Muon update what they should, by how much they should, and their state survives being saved."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fulmen_core.errors import CorruptArtefact
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_trainer.muon import NEWTON_SCHULZ, Muon, orthogonalise
from fulmen_trainer.optimizers import OptimizerConfig, build_optimizer


def naive_muon(weight: Tensor, gradient: Tensor, buffer: Tensor, lr: float, decay: float) -> Tensor:
    """One matrix, one step, in float64, written from the paper with explicit transposes."""
    a, b, c = NEWTON_SCHULZ
    buffer.mul_(0.95).add_(0.05 * gradient)
    x = 0.05 * gradient + 0.95 * buffer
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    x = x / (x.pow(2).sum().sqrt() * (1 + 1e-4) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if flip else x
    return weight * (1 - lr * decay) - lr * 0.2 * math.sqrt(max(weight.shape)) * x


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (5, 12, 4), (3, 4, 12)], ids=str)
def test_batched_muon_equals_one_matrix_at_a_time(shape: tuple[int, ...]) -> None:
    parameters = {f"w{i}": nn.Parameter(torch.randn(shape, dtype=torch.float64)) for i in range(2)}
    expected = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    buffers = {name: torch.zeros_like(parameter) for name, parameter in expected.items()}
    muon = Muon(parameters, lr=0.1, momentum=0.95, weight_decay=0.2, products=torch.float64)
    for step in range(3):
        scale = 1.0 - 0.25 * step
        for name, parameter in parameters.items():
            gradient = torch.randn(shape, dtype=torch.float64)
            parameter.grad = gradient
            matrices = expected[name].view(-1, *shape[-2:])
            for index in range(len(matrices)):
                matrices[index] = naive_muon(
                    matrices[index],
                    gradient.view_as(matrices)[index],
                    buffers[name].view_as(matrices)[index],
                    0.1 * scale,
                    0.2,
                )
        muon.step(scale)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.data, expected[name])


def test_maps_that_share_a_weight_are_orthogonalised_apart() -> None:
    stacked = nn.Parameter(torch.randn(3, 8, 12, dtype=torch.float64))
    apart = nn.Parameter(stacked.detach().reshape(6, 4, 12).clone())
    gradient = torch.randn(3, 8, 12, dtype=torch.float64)
    stacked.grad, apart.grad = gradient, gradient.reshape(6, 4, 12)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    Muon({"blocks.0.gate_up_EGD": stacked}, **settings, products=torch.float64).step(1.0)
    Muon({"w": apart}, **settings, products=torch.float64).step(1.0)
    assert torch.equal(stacked.reshape(6, 4, 12), apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_orthogonalised_singular_values_are_near_one(dtype: torch.dtype) -> None:
    singular_values = torch.linalg.svdvals(orthogonalise(torch.randn(4, 24, 40), dtype).float())
    assert singular_values.min() > 0.5
    assert singular_values.max() < 1.4


@pytest.fixture
def model() -> Transformer:
    config = load_preset("nano").model_dump() | {"tie_word_embeddings": False}
    return Transformer(ModelConfig.model_validate(config))


def set_random_gradients(model: nn.Module, scale: float = 1.0) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * scale


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_decay(model: Transformer, name: str) -> None:
    optimizer = build_optimizer(model, OptimizerConfig.model_validate({"name": name, "lr": 0.1, "weight_decay": 0.5}))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    for parameter_name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[parameter_name])
        assert moved == ("norm" not in parameter_name and "embed" not in parameter_name), parameter_name


def test_muon_leaves_embedding_head_norms_and_routers_to_adamw(model: Transformer) -> None:
    set_random_gradients(model)
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"))
    optimizer.step(1.0)
    by_muon = {name.removesuffix(".momentum") for name in optimizer.state_dict() if name.endswith(".momentum")}
    by_adamw = {name.removesuffix(".exp_avg") for name in optimizer.state_dict() if name.endswith(".exp_avg")}
    assert by_muon | by_adamw == dict(model.named_parameters()).keys()
    assert not by_muon & by_adamw
    assert {"embed.weight", "head.weight", "norm.weight"} <= by_adamw
    assert all("router" in name or "norm" in name for name in by_adamw - {"embed.weight", "head.weight"})
    assert any(name.endswith("down_EFD") for name in by_muon)


def test_one_learning_rate_moves_matrices_alike_under_both_optimizers(model: Transformer) -> None:
    def first_update(name: str) -> float:
        torch.manual_seed(3)
        copy = Transformer(model.config)
        weight = copy.block(0).attention.q_proj.weight
        before = weight.detach().clone()
        set_random_gradients(copy)
        build_optimizer(copy, OptimizerConfig.model_validate({"name": name, "lr": 1e-3, "weight_decay": 0.0})).step(1.0)
        return float((weight.detach() - before).pow(2).mean().sqrt())

    # AdamW's first update is the sign of the gradient; its usual size, to which Muon is scaled, 0.2 of it.
    assert first_update("muon") == pytest.approx(0.2 * first_update("adamw"), rel=0.25)


def test_the_scale_of_the_learning_rate_reaches_every_group(model: Transformer) -> None:
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    set_random_gradients(model)
    optimizer.step(0.0)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    set_random_gradients(model)
    optimizer.step(1.0)
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_gradients_are_clipped_to_the_norm_over_all_parameters() -> None:
    model = nn.Linear(4, 4, bias=False)
    optimizer = build_optimizer(model, OptimizerConfig(grad_clip=0.5))
    model.weight.grad = torch.full((4, 4), 3.0)
    assert optimizer.step(1.0) == pytest.approx(12.0)
    first_moment = optimizer.state_dict()["weight.exp_avg"]
    assert float(first_moment.norm()) == pytest.approx(0.1 * 0.5, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(model: Transformer, bad: float) -> None:
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    set_random_gradients(model)
    assert model.embed.weight.grad is not None
    model.embed.weight.grad[0, 0] = bad
    assert not math.isfinite(optimizer.step(1.0))
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert optimizer.state_dict() == {}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_bit_for_bit(model: Transformer, name: str) -> None:
    config = OptimizerConfig.model_validate({"name": name})
    twin = Transformer(model.config)
    optimizer = build_optimizer(model, config)
    for _ in range(3):
        set_random_gradients(model)
        optimizer.step(1.0)
    twin.load_state_dict(model.state_dict())
    restored = build_optimizer(twin, config)
    restored.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        set_random_gradients(model)
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert one.grad is not None
            other.grad = one.grad.clone()
        optimizer.step(0.7)
        restored.step(0.7)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("name", ["embed.weight.exp_avg", "nothing.exp_avg", "nothing.momentum"])
def test_a_state_that_fits_no_parameter_is_refused(model: Transformer, name: str) -> None:
    optimizer = build_optimizer(model, OptimizerConfig(name="muon"))
    with pytest.raises(CorruptArtefact, match="fits no parameter"):
        optimizer.load_state_dict({name: torch.zeros(3)})
