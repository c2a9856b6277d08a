"""Routed experts in two forms: a few rows read the weights of their experts alone, many are sorted by expert.

The first form is the one that OpenVINO's plugins rewrite into products with gathered weights: to the letter all experts
for all tokens, in what is run the chosen ones alone. It reads a weight again for each row, which is right until rows
outnumber experts. The second pads the rows of each expert to those of the busiest, so that batched products compute
them. It is left out where weights are quantised, as the plugin would keep them expanded to float32 for it.

Legend: N tokens, D model width, E experts, K experts per token, F expert width, M = N*K (token, selection) pairs,
C rows of the busiest expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import openvino
from openvino import op, opset15

from fulmen_backend_openvino.operators import (
    Value,
    integer,
    integers,
    linear,
    real,
    reshape,
    size,
    swiglu,
    transpose,
)
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
    gate_EFD, up_EFD = experts.gate_up_EGD.chunk(2, dim=1)
    down_EDF = experts.down_EFD.transpose(1, 2)
    if weights.quantize is not None:
        return _gathered(x_ND, routing, weights.matrix(gate_EFD), weights.matrix(up_EFD), weights.matrix(down_EDF))

    def form(
        combine: Callable[[Value, Routing, Value, Value, Value], Value],
    ) -> tuple[openvino.Model, list[Value], Value]:
        top_k = routing.selected_NK.get_partial_shape()[1].get_length()
        inputs = [
            opset15.parameter([-1, width], np.float32),
            opset15.parameter([-1, top_k], np.int64),
            opset15.parameter([-1, top_k], np.float32),
        ]
        operands = (weights.matrix(tensor) for tensor in (gate_EFD, up_EFD, down_EDF))
        result = opset15.result(combine(inputs[0], Routing(inputs[1], inputs[2]), *operands))
        return openvino.Model([result], inputs), inputs, result

    rows = opset15.reduce_prod(opset15.shape_of(routing.selected_NK), integers(0), keep_dims=False)
    branch = op.if_op(opset15.less_equal(rows, integer(count)).output(0))
    few, few_inputs, few_result = form(_gathered)
    many, many_inputs, many_result = form(_sorted)
    branch.set_then_body(few)
    branch.set_else_body(many)
    values = (x_ND, routing.selected_NK, routing.weights_NK)
    for value, few_input, many_input in zip(values, few_inputs, many_inputs, strict=True):
        branch.set_input(value.output(0) if hasattr(value, "output") else value, few_input, many_input)
    return branch.set_output(few_result, many_result)


def _gathered(x_ND: Value, routing: Routing, gate_EFD: Value, up_EFD: Value, down_EDF: Value) -> Value:
    """Node for node what `ConvertTiledMoeBlockToGatherMatmuls` looks for; another spelling computes all experts."""
    experts, width, _ = (part.get_length() for part in down_EDF.get_output_partial_shape(0))
    tokens = size(x_ND, 0)
    rows_ND = reshape(x_ND, -1, width)  # the pattern begins with a Reshape
    tiled_END = reshape(opset15.tile(rows_ND, integers(experts, 1)), experts, -1, width)
    out_END = linear(swiglu(tiled_END, gate_EFD, up_EFD), down_EDF)
    out_E1ND = reshape(out_END, experts, 1, -1, width)
    none_NE = opset15.broadcast(real(0), opset15.concat([tokens, integers(experts)], 0))
    weights_NE = opset15.scatter_elements_update(none_NE, routing.selected_NK, routing.weights_NK, integer(1))
    weights_E1N = reshape(transpose(weights_NE, 1, 0), experts, 1, -1)
    mixed_1ND = opset15.reduce_sum(
        opset15.multiply(out_E1ND, opset15.unsqueeze(weights_E1N, integer(-1))), integers(0), keep_dims=False
    )
    return reshape(mixed_1ND, -1, width)


def _sorted(x_ND: Value, routing: Routing, gate_EFD: Value, up_EFD: Value, down_EDF: Value) -> Value:
    experts, width, _ = (part.get_length() for part in down_EDF.get_output_partial_shape(0))
    top_k = routing.selected_NK.get_partial_shape()[1].get_length()
    selected_M = reshape(routing.selected_NK, -1)
    one, none = opset15.constant(np.int64(1)), opset15.constant(np.int64(0))
    chosen_ME = opset15.one_hot(selected_M, integer(experts), one, none, -1)
    nth_ME = opset15.cum_sum(chosen_ME, integer(0))
    nth_M = opset15.squeeze(opset15.gather_elements(nth_ME, opset15.unsqueeze(selected_M, integer(1)), 1), integers(1))
    busiest = opset15.reduce_max(
        opset15.reduce_sum(chosen_ME, integers(0), keep_dims=False), integers(0), keep_dims=True
    )
    place_M = opset15.add(opset15.multiply(selected_M, busiest), opset15.subtract(nth_M, one))
    pairs = opset15.squeeze(size(selected_M, 0), integers(0))
    token_M = opset15.divide(opset15.range(integer(0), pairs, integer(1), "i64"), integer(top_k))
    # filler rows compute the first token again, and nobody reads them
    filler = opset15.broadcast(none, opset15.multiply(busiest, integers(experts)))
    token_R = opset15.scatter_elements_update(filler, place_M, token_M, integer(0))
    x_ECD = reshape(opset15.gather(x_ND, token_R, integer(0)), experts, busiest, width)
    out_RD = reshape(linear(swiglu(x_ECD, gate_EFD, up_EFD), down_EDF), -1, width)
    out_NKD = reshape(opset15.gather(out_RD, place_M, integer(0)), -1, top_k, width)
    weighted_NKD = opset15.multiply(out_NKD, opset15.unsqueeze(routing.weights_NK, integer(2)))
    return opset15.reduce_sum(weighted_NKD, integers(1), keep_dims=False)
