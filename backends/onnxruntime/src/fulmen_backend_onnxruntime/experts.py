"""The feed-forward half of a layer as nodes: a dense network, or routed experts as one operator and shared ones beside.

Legend: B batch, T time, N = B*T tokens, D model width, E experts, K experts per token, F inner width, G = 2F.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fulmen_backend_onnxruntime.block_quantization import ROUNDED_INPUT, block_size, quantize
from fulmen_backend_onnxruntime.graph_builder import CONTRIB
from fulmen_backend_onnxruntime.products import Array, Products
from fulmen_core.errors import CapabilityError
from fulmen_core.model.config import ModelConfig

Weights = Callable[[str], Array]

#: Keeps the logarithm of a score finite, were all of a token's scores to vanish.
_TINY = 1e-20
#: The logarithm of the score of an expert that is not chosen.
_UNCHOSEN = -1e30
_SWIGLU: dict[str, Any] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
}
#: Experts that ONNX Runtime's router of sigmoids takes.
_ROUTED = 512


def dense_feed_forward(products: Products, x_BTD: str, weights: Weights, name: str) -> str:
    """``down(silu(gate(x)) * up(x))``, [B, T, D]."""
    graph = products.graph
    form = products.form
    gate_up = products.dense(x_BTD, f"{name}.gate_up", weights(f"{name}.gate_up.weight"), form.bits)
    gate, up = graph.nodes("Split", 2, gate_up, axis=-1, num_outputs=2)
    hidden = graph.node("Mul", graph.contrib("QuickGelu", gate, alpha=1.0), up)
    return products.dense(hidden, f"{name}.down", weights(f"{name}.down.weight"), form.other_bits)


class Mixture:
    """Adds routed experts, and shared ones, to a graph.

    What multiplies all weights of the mix, `router_scale`, is multiplied into the experts' second product.

    Args:
        products: adds products.
        config: of the model.
        logits_N1: float32, any finite ones: a router's of a single expert.
    """

    def __init__(self, products: Products, config: ModelConfig, logits_N1: str) -> None:
        self._products, self._graph, self._config, self._logits_N1 = products, products.graph, config, logits_N1
        self._one_group = {"n_group": 1, "topk_group": 1, "group_topk": 1, "top_k": config.num_experts_per_tok}

    def add(self, x_BTD: str, weights: Weights) -> str:
        """The routed experts' mix, [B, T, D]."""
        config = self._config
        logits_BTE = self._products.exact(x_BTD, "ffn.router", weights("ffn.router.weight"))
        bias_E = weights("ffn.router.bias") if config.router_bias else None
        gate_up_EGD = _in_turns(weights("ffn.experts.gate_up_EGD"))
        down_EDF = weights("ffn.experts.down_EFD").swapaxes(1, 2) * np.float32(config.router_scale)
        add = self._exact if self._products.form.bits is None else self._quantized
        return add(x_BTD, logits_BTE, bias_E, gate_up_EGD, down_EDF)

    def add_shared(self, x_BTD: str, weights: Weights) -> str | None:
        """What the shared experts add to that, [B, T, D]; None: there are none.

        In 8 bits they are the one expert of a mixture, where a block divides its widths: one small node for five.
        """
        if not self._config.num_shared_experts:
            return None
        name, form = "ffn.shared", self._products.form
        gate_up_GD, down_DF = weights(f"{name}.gate_up.weight"), weights(f"{name}.down.weight")
        block = block_size(down_DF.shape, form.block) if form.bits == form.other_bits == 8 else None
        if block is None:
            return dense_feed_forward(self._products, x_BTD, weights, name)
        pair = _in_turns(gate_up_GD[None]), down_DF[None]
        return quantized_experts(self._products, x_BTD, self._logits_N1, None, pair, name, block, chosen=1)

    def _exact(self, x_BTD: str, logits_BTE: str, bias_E: Array | None, gate_up_EGD: Array, down_EDF: Array) -> str:
        """MoE, which takes the softmax of what it is given for scores.

        Of logarithms of scores, with the experts that are not chosen at next to minus infinity, it makes the chosen
        ones' scores divided by their sum.
        """
        graph, config = self._graph, self._config
        total_N1 = None
        plain = config.router_score == "softmax" and bias_E is None
        logits_NE = self._rows(logits_BTE) if plain else self._log_scores(logits_BTE, bias_E)
        if not plain and not config.norm_topk_prob:
            total_N1 = graph.node("ReduceSum", graph.node("Exp", logits_NE), graph.constant([1]))
        y_BTD = graph.contrib(
            "MoE",
            x_BTD,
            logits_NE,
            self._products.computable("ffn.experts.gate_up", gate_up_EGD),
            None,
            self._products.computable("ffn.experts.down", down_EDF),
            normalize_routing_weights=int(config.norm_topk_prob or not plain),
            k=config.num_experts_per_tok,
            **_SWIGLU,
        )
        if total_N1 is not None:
            y_ND = graph.node("Reshape", y_BTD, graph.constant([-1, config.hidden_size]))
            y_BTD = graph.node("Reshape", graph.node("Mul", y_ND, total_N1), graph.node("Shape", x_BTD))
        return y_BTD

    def _quantized(self, x_BTD: str, logits_BTE: str, bias_E: Array | None, gate_up_EGD: Array, down_EDF: Array) -> str:
        """QMoE, which may be told apart by what experts are chosen and by what they are mixed."""
        config, form = self._config, self._products.form
        block = block_size((config.hidden_size, config.moe_intermediate_size), form.block)
        if block is None:
            raise CapabilityError(
                f"experts of {config.hidden_size} x {config.moe_intermediate_size} cannot be quantised in blocks: "
                "no power of 2 from 16 on divides both",
                remedy="leave --quantize out",
            )
        scores_NE: str | None = None
        if config.router_score == "softmax" and bias_E is None and config.norm_topk_prob:
            ranks_NE = self._rows(logits_BTE)
        else:
            scores_NE, ranks_NE = self._scores_and_ranks(logits_BTE, bias_E)
        return quantized_experts(
            self._products,
            x_BTD,
            ranks_NE,
            scores_NE,
            (gate_up_EGD, down_EDF),
            "ffn.experts",
            block,
            chosen=config.num_experts_per_tok,
            normalized=config.norm_topk_prob,
        )

    def _scores_and_ranks(self, logits_BTE: str, bias_E: Array | None) -> tuple[str, str]:
        """What experts are mixed by, and what they are chosen by: [N, E]."""
        graph = self._graph
        if self._config.router_score == "sigmoid" and self._config.num_experts <= _ROUTED:
            _, ranks_NE, scores_NE = graph.nodes(
                "MoEGroupRouter",
                3,
                logits_BTE,
                self._bias(bias_E),
                domain=CONTRIB,
                unused=(0,),
                **self._one_group,
            )
            return scores_NE, ranks_NE
        logits_NE = self._rows(logits_BTE)
        sigmoid = self._config.router_score == "sigmoid"
        scores_NE = graph.node("Sigmoid", logits_NE) if sigmoid else graph.node("Softmax", logits_NE, axis=-1)
        return scores_NE, scores_NE if bias_E is None else graph.node("Add", scores_NE, self._bias(bias_E))

    def _log_scores(self, logits_BTE: str, bias_E: Array | None) -> str:
        """Logarithms of the scores of the chosen experts, [N, E]; those of the others are next to minus infinity."""
        graph, config = self._graph, self._config
        if config.router_score == "sigmoid" and config.num_experts <= _ROUTED:
            return graph.contrib(
                "MoEGroupRouter", logits_BTE, self._bias(bias_E), router_sentinel=_UNCHOSEN, **self._one_group
            )
        scores_NE, ranks_NE = self._scores_and_ranks(logits_BTE, bias_E)
        best_NK, _ = graph.nodes("TopK", 2, ranks_NE, graph.constant([config.num_experts_per_tok]))
        least_N1 = graph.node("ReduceMin", best_NK, graph.constant([1]))
        is_chosen_NE = graph.node("GreaterOrEqual", ranks_NE, least_N1)
        log_NE = graph.node("Log", graph.node("Max", scores_NE, graph.constant(_TINY, "float32")))
        return graph.node("Where", is_chosen_NE, log_NE, graph.constant(_UNCHOSEN, "float32"))

    def _bias(self, bias_E: Array | None) -> str:
        zeros_E = np.zeros(self._config.num_experts, np.float32)
        return self._graph.weight("ffn.router.bias", zeros_E if bias_E is None else bias_E)

    def _rows(self, logits_BTE: str) -> str:
        return self._graph.node("Reshape", logits_BTE, self._graph.constant([-1, self._config.num_experts]))


def quantized_experts(
    products: Products,
    x_BTD: str,
    ranks_NE: str,
    scores_NE: str | None,
    weights: tuple[Array, Array],
    name: str,
    block: int,
    *,
    chosen: int,
    normalized: bool = True,
) -> str:
    """QMoE over the experts' first (gate and up in turns) and second products [E, outputs, inputs], [B, T, D].

    Args:
        products: says in how many bits.
        x_BTD: the input.
        ranks_NE: what experts are chosen by.
        scores_NE: what they are mixed by; None: a softmax of `ranks_NE`.
        weights: of the products.
        name: of the weights.
        block: inputs that share a scale; it divides those of both products.
        chosen: experts of a token.
        normalized: whether the scores of the chosen ones are divided by their sum.
    """
    graph, bits = products.graph, products.form.bits
    assert bits is not None
    operands: list[str | None] = [x_BTD, ranks_NE]
    for part, weight in zip(("gate_up", "down"), weights, strict=True):
        data, scales = quantize(weight, bits, block)
        operands += [
            graph.weight(f"{name}.{part}", data.reshape(*data.shape[:2], -1)),
            graph.weight(f"{name}.{part}.scales", scales),
            None,
        ]
    if scores_NE is not None:
        operands += [None] * 6 + [scores_NE]
    return graph.contrib(
        "QMoE",
        *operands,
        expert_weight_bits=bits,
        block_size=block,
        accuracy_level=ROUNDED_INPUT,
        normalize_routing_weights=int(normalized),
        k=chosen,
        **_SWIGLU,
    )


def _in_turns(gate_up_EGD: Array) -> Array:
    """Rows of the gate and of the up projection in turns, as the CPU's kernels want them."""
    experts, rows, width = gate_up_EGD.shape
    turns: Array = gate_up_EGD.reshape(experts, 2, rows // 2, width).swapaxes(1, 2).reshape(experts, rows, width)
    return turns
