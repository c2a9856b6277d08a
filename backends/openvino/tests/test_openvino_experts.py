"""Routed experts are the model's, and those that no token chose cost nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset15
from openvino.properties import hint

from fulmen_backend_openvino.compiling import core
from fulmen_backend_openvino.experts import mix, route
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


def compiled(network: MixtureFeedForward, quantize: str | None = None) -> Any:
    x_ND = opset15.parameter([-1, CONFIG.hidden_size], np.float32)
    y_ND = mix(x_ND, route(x_ND, network.router), network.experts, Weights("float32", quantize))
    graph = openvino.Model([opset15.result(y_ND)], [x_ND])
    return core().compile_model(graph, "CPU", {hint.inference_precision: openvino.Type.f32})


def expected(network: MixtureFeedForward, x_ND: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        y_ND: np.ndarray = network(x_ND)[0].numpy()
    return y_ND


@pytest.mark.parametrize("tokens", [1, 2, 5, 40])
def test_experts_mix_what_the_models_do(network: MixtureFeedForward, tokens: int) -> None:
    x_ND = torch.randn(tokens, CONFIG.hidden_size)
    np.testing.assert_allclose(compiled(network)(x_ND.numpy())[0], expected(network, x_ND), atol=2e-5)


def test_all_rows_to_the_same_experts_are_still_right(network: MixtureFeedForward) -> None:
    with torch.no_grad():
        network.router.weight.zero_()
        network.router.weight[[2, 7, 9]] = 1
    x_ND = torch.rand(30, CONFIG.hidden_size)
    np.testing.assert_allclose(compiled(network)(x_ND.numpy())[0], expected(network, x_ND), atol=2e-5)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_experts_become_products_with_gathered_weights(network: MixtureFeedForward, quantize: str | None) -> None:
    # spelled otherwise, the pattern is not found, all experts are computed, and quantised weights are expanded
    nodes = compiled(network, quantize).get_runtime_model().get_ops()
    kinds = [node.get_rt_info()["layerType"].value for node in nodes]
    assert kinds.count("GatherMatmul") == 3
    assert kinds.count("FullyConnected") == 1  # the router
    assert "MatMul" not in kinds
