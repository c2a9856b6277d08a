"""Routed experts, spelled as OpenVINO's plugins look for them: `ConvertTiledMoeBlockToGatherMatmuls` in its sources.

To the letter all experts compute all tokens, and the chosen ones are mixed. What is run are products with gathered
weights, of the chosen experts alone, and quantised weights stay as they are. Another spelling of the same is run to the
letter.

Legend: N tokens, D model width, E experts, K experts per token, F expert width.
"""

from __future__ import annotations

from typing import NamedTuple

from openvino import opset15

from fulmen_backend_openvino.operators import Value, integer, integers, linear, real, reshape, size, swiglu, transpose
from fulmen_backend_openvino.weights import Weights
from fulmen_core.model.experts import Experts
from fulmen_core.model.router import Router

_TINY = 1e-20  # what the router adds to a sum of sigmoids that it divides by


class Routing(NamedTuple):
    """Which experts each token takes, int64 [N, K], and how they are mixed, float32 [N, K]."""

    selected_NK: Value
    weights_NK: Value


def route(x_ND: Value, router: Router) -> Routing:
    """The router's decision: see `fulmen_core.model.router.Router`. Its weights are never rounded."""
    scores_NE = linear(x_ND, opset15.constant(router.weight.detach().float().numpy()))
    scores_NE = opset15.softmax(scores_NE, -1) if router.score == "softmax" else opset15.sigmoid(scores_NE)
    ranked_NE = scores_NE
    if router.bias is not None:
        ranked_NE = opset15.add(scores_NE, opset15.constant(router.bias.detach().float().numpy()[None]))
    best = opset15.topk(ranked_NE, integer(router.top_k), -1, "max", "value", index_element_type="i64")
    weights_NK, selected_NK = best.outputs()
    if router.bias is not None:
        weights_NK = opset15.gather_elements(scores_NE, selected_NK, 1)
    if router.normalise:
        total_N1 = opset15.reduce_sum(weights_NK, integers(-1), keep_dims=True)
        if router.score == "sigmoid":
            total_N1 = opset15.add(total_N1, real(_TINY))
        weights_NK = opset15.divide(weights_NK, total_N1)
    if router.scale != 1:
        weights_NK = opset15.multiply(weights_NK, real(router.scale))
    return Routing(selected_NK, weights_NK)


def mix(x_ND: Value, routing: Routing, experts: Experts, weights: Weights) -> Value:
    """The selected experts' mixed outputs [N, D]."""
    count, _, width = experts.down_EFD.shape
    gate_EFD, up_EFD = (weights.matrix(part) for part in experts.gate_up_EGD.chunk(2, dim=1))
    down_EDF = weights.matrix(experts.down_EFD.transpose(1, 2))
    rows_ND = reshape(x_ND, -1, width)  # the pattern begins with a Reshape
    tiled_END = reshape(opset15.tile(rows_ND, integers(count, 1)), count, -1, width)
    out_END = linear(swiglu(tiled_END, gate_EFD, up_EFD), down_EDF)
    none_NE = opset15.broadcast(real(0), opset15.concat([size(x_ND, 0), integers(count)], 0))
    weights_NE = opset15.scatter_elements_update(none_NE, routing.selected_NK, routing.weights_NK, integer(1))
    weights_E1N = reshape(transpose(weights_NE, 1, 0), count, 1, -1)
    weighted_E1ND = opset15.multiply(reshape(out_END, count, 1, -1, width), opset15.unsqueeze(weights_E1N, integer(-1)))
    return reshape(opset15.reduce_sum(weighted_E1ND, integers(0), keep_dims=False), -1, width)
