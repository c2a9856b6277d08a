"""Both forms of the experts are the model's, and neither computes experts that no token chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset15
from openvino.properties import hint

from fulmen_backend_openvino.experts import _gathered, _sorted, mix, route
from fulmen_backend_openvino.weights import Weights
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.model.initialisation import initialise

from .conftest import LIGHTNING

CONFIG = LIGHTNING.model_copy(update={"num_experts": 16, "num_experts_per_tok": 3})


@pytest.fixture
def network() -> MixtureFeedForward:
    network = MixtureFeedForward(CONFIG)
    initialise(network, CONFIG)
    return network.eval()


def compiled(network: MixtureFeedForward, form: Callable[..., Any] | None, quantize: str | None = None) -> Any:
    x_ND = opset15.parameter([-1, CONFIG.hidden_size], np.float32)
    weights, routing = Weights("float32", quantize), route(x_ND, network.router)
    if form is None:
        y_ND = mix(x_ND, routing, network.experts, weights)
    else:
        gate_EFD, up_EFD = network.experts.gate_up_EGD.chunk(2, dim=1)
        tensors = (gate_EFD, up_EFD, network.experts.down_EFD.transpose(1, 2))
        y_ND = form(x_ND, routing, *(weights.matrix(tensor) for tensor in tensors))
    graph = openvino.Model([opset15.result(y_ND)], [x_ND])
    return openvino.Core().compile_model(graph, "CPU", {hint.inference_precision: openvino.Type.f32})


def kinds(model: Any) -> Sequence[str]:
    return [node.get_rt_info()["layerType"].value for node in model.get_runtime_model().get_ops()]


@pytest.mark.parametrize("form", [_gathered, _sorted, None])
@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 40])
def test_each_form_mixes_what_the_model_mixes(
    network: MixtureFeedForward, form: Callable[..., Any] | None, tokens: int
) -> None:
    x_ND = torch.randn(tokens, CONFIG.hidden_size)
    with torch.inference_mode():
        expected_ND = network(x_ND)[0].numpy()
    np.testing.assert_allclose(compiled(network, form)(x_ND.numpy())[0], expected_ND, atol=2e-5)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_a_few_rows_are_products_with_gathered_weights(network: MixtureFeedForward, quantize: str | None) -> None:
    # spelled otherwise, the pattern is not found and all experts are computed
    assert kinds(compiled(network, _gathered, quantize)).count("GatherMatmul") == 3


def test_all_rows_to_one_expert_are_still_right(network: MixtureFeedForward) -> None:
    with torch.no_grad():
        network.router.weight.zero_()
        network.router.weight[[2, 7, 9]] = 1
    x_ND = torch.rand(30, CONFIG.hidden_size)
    with torch.inference_mode():
        expected_ND = network(x_ND)[0].numpy()
    np.testing.assert_allclose(compiled(network, None)(x_ND.numpy())[0], expected_ND, atol=2e-5)
