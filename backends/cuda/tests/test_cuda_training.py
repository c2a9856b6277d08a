"""A prepared model computes what the plain one does: hidden states and every gradient, whatever is recomputed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fulmen_backend_cuda import training as training_module
from fulmen_backend_cuda.backend import CudaBackend
from fulmen_backend_cuda.support import EMULATED, support_of
from fulmen_backend_cuda.training import CudaTrainProgram
from fulmen_backend_cuda.training_attention import attend_by_flex
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError
from fulmen_core.model.attention import attend as attend_by_torch
from fulmen_core.model.balance import balance_losses
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_testing.models import DEEP, random_model, with_changes

CPU = torch.device("cpu")


def config(**changes: Any) -> ModelConfig:
    longer = {"max_position_embeddings": 256, "sliding_window": 9, "intermediate_size": 48, "initializer_range": 0.1}
    return with_changes(DEEP, longer | {"num_dense_layers": 1, "num_shared_experts": 1} | changes)


def batch(rows: int, tokens: int, *, documents: bool) -> dict[str, Any]:
    ids = torch.randint(61, (rows, tokens))
    if not documents:
        return {"tokens_BT": ids}
    begins = torch.rand(rows, tokens) < 0.08
    segments = begins.cumsum(1)
    at = torch.arange(tokens).expand(rows, -1)
    positions = at - torch.where(begins, at, 0).cummax(1).values
    return {"tokens_BT": ids, "segments_BT": segments, "positions_BT": positions}


def gradients(model: Transformer, called: Any, inputs: dict[str, Any], recompute: str) -> dict[str, torch.Tensor]:
    """The hidden states and every gradient of a loss in which all of them, and the routers, take part."""
    inputs = dict(inputs)
    output = called(inputs.pop("tokens_BT"), recompute=recompute, **inputs)
    loss = (output.hidden_BTD.double() * torch.linspace(-1, 1, 32)).sum()
    if output.router is not None:
        loss = loss + 1e4 * balance_losses(output.router, model.config.balance, 2).total
    names, parameters = zip(*model.named_parameters(), strict=True)
    return {
        "hidden": output.hidden_BTD.detach(),
        **dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)),
    }


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("recompute", ["none", "experts", "blocks"])
@pytest.mark.parametrize("experts", ["auto", "dense"])
def test_hidden_states_and_gradients_equal_the_plain_models(experts: Any, recompute: str, documents: bool) -> None:
    torch.manual_seed(11)
    plain = random_model(config(), 1).double()
    prepared = Transformer(config()).double()
    prepared.load_state_dict(plain.state_dict())
    inputs = batch(2, 60, documents=documents)
    expected = gradients(plain, plain, inputs, "none")
    program = CudaTrainProgram(prepared, TrainPlan(dtype="float32", experts=experts), CPU, EMULATED)
    with program.autocast():
        got = gradients(prepared, program.model, inputs, recompute)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, msg=name)


def test_under_bfloat16_products_are_rounded_and_weights_and_gradients_stay_float32() -> None:
    torch.manual_seed(12)
    model = random_model(config(num_experts=0, num_experts_per_tok=0), 2)
    inputs = batch(2, 60, documents=True)
    exact = gradients(model, model, inputs, "none")
    program = CudaBackend(device="cpu").prepare_training(model, TrainPlan())
    with program.autocast():
        rounded = gradients(model, program.model, inputs, "none")
    for name, value in exact.items():
        error = (rounded[name].double() - value.double()).norm() / value.double().norm()
        assert 0 < error < 0.1, f"{name}: {error:.3f}"
        assert name == "hidden" or rounded[name].dtype is torch.float32


def test_training_with_experts_in_8_bits_learns_as_well_as_without() -> None:
    losses = {}
    for experts in ("auto", "fp8"):
        torch.manual_seed(13)
        model = Transformer(config())
        program = CudaBackend(device="cpu").prepare_training(model, TrainPlan(experts=experts))  # type: ignore[arg-type]
        assert program.choices["experts"] == {"auto": "grouped", "fp8": "fp8"}[experts]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        ids = torch.arange(4 * 33).view(4, 33) * 7 % 61  # every token says which one follows
        for _ in range(20):
            with program.autocast():
                logits = model.logits(program.model(ids[:, :-1]).hidden_BTD)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        losses[experts] = float(loss.detach())
    assert losses["auto"] < 1.0  # of ln 61 = 4.1 nats at the start
    assert losses["fp8"] < 1.3 * losses["auto"] + 0.1


def test_choices_say_what_was_chosen_and_why() -> None:
    program = CudaTrainProgram(Transformer(config()), TrainPlan(), CPU, support_of((8, 0)))
    assert program.choices["dtype"] == "bfloat16"
    assert program.choices["device"] == "cpu"
    assert program.choices["experts"] == "grouped"
    assert program.choices["experts_reason"].startswith("one product an expert")
    assert program.choices["compile"] == "no"
    asked = CudaTrainProgram(Transformer(config()), TrainPlan("float32", compile=True), CPU, EMULATED)
    assert asked.choices["dtype_reason"] == "asked for"
    assert asked.choices["compile"] == "no: grouped matrix products compile in bfloat16 only"


def test_what_cannot_be_trained_so_is_refused_with_the_reason() -> None:
    backend = CudaBackend(device="cpu")
    with pytest.raises(CapabilityError, match="does not train in float16: use one of auto, bfloat16, float32"):
        backend.prepare_training(Transformer(config()), TrainPlan("float16"))
    with pytest.raises(CapabilityError, match="no experts to train in fp8"):
        backend.prepare_training(Transformer(config(num_experts=0, num_experts_per_tok=0)), TrainPlan(experts="fp8"))
    with pytest.raises(CapabilityError, match="cannot be trained in fp8: size 24 is no multiple of 16"):
        backend.prepare_training(Transformer(config(moe_intermediate_size=24)), TrainPlan(experts="fp8"))


@pytest.mark.slow
def test_masks_and_flex_attention_are_traced_as_one_graph_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiling needs on a GPU, where attention is FlexAttention; without gradients, as the CPU has none of it."""
    monkeypatch.setattr(
        training_module,
        "attend",
        lambda q, k, v, mask: (attend_by_torch if mask is None else attend_by_flex)(q, k, v, mask),
    )
    torch.manual_seed(14)
    model = random_model(config(num_hidden_layers=4), 3).requires_grad_(False)
    inputs = batch(2, 60, documents=True)
    expected = model(**inputs).hidden_BTD
    program = CudaTrainProgram(model, TrainPlan(dtype="float32", experts="dense"), CPU, EMULATED)
    compiled = torch.compile(program.model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).hidden_BTD, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", ["none", "blocks"])
@pytest.mark.parametrize("compile_model", [False, True])
def test_a_step_on_the_gpu_has_the_gradients_of_the_plain_model(
    gpu: torch.device, compile_model: bool, recompute: str
) -> None:
    torch.manual_seed(15)
    shape = config(hidden_size=128, head_dim=64, sliding_window=100, num_experts=0, num_experts_per_tok=0)
    plain = random_model(shape, 4)
    inputs = batch(2, 250, documents=True)
    prepared = Transformer(shape)
    prepared.load_state_dict(plain.state_dict())
    program = CudaBackend().prepare_training(prepared, TrainPlan(compile=compile_model))
    placed = {name: tensor.to(gpu) for name, tensor in inputs.items()}

    def run(model: Transformer, called: Any, given: dict[str, Any]) -> list[torch.Tensor]:
        given = dict(given)
        hidden = called(given.pop("tokens_BT"), recompute=recompute, **given).hidden_BTD
        loss = (hidden.float() * torch.linspace(-1, 1, 128, device=hidden.device)).sum()
        return [part.cpu() for part in torch.autograd.grad(loss, list(model.parameters()))]

    with program.autocast():
        got = run(prepared, program.model, placed)
    for one, other in zip(got, run(plain, plain, inputs), strict=True):
        assert (one - other).norm() / other.norm() < 0.1
