"""Feed-forward networks in the graph: SwiGLU, and routed experts in the two forms that TensorRT builds.

* "gather": the weights of the chosen experts are gathered for each token. Reads little for few tokens: decoding.
* "dense": all experts as two wide products, those not chosen weighted by zero. Reads every weight once: prompts.

The experts are inputs of the graph, in the checkpoint's layout, and both forms take them as they are; rounded ones are
multiplied by their scale before the product, as sums of whole numbers would leave float16. Inputs can have 8 bits, not
4: two of 4 bits are one of 8, taken apart by arithmetic that is exact in 16 bits. TensorRT-RTX 1.7 refuses the other
known forms: padding to the busiest expert, one branch for each expert, and its own MoE layer.

Legend: B batch, T time, N = B*T tokens, D model width, E experts, K experts per token, F expert width, G = 2F, b block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from fulmen_backend_tensorrt.graph_writer import ELEMENT, GraphWriter
from fulmen_backend_tensorrt.projections import write_product
from fulmen_backend_tensorrt.quantisation import block_of, form_of
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.model.config import ModelConfig

Mixture = Literal["gather", "dense"]
Load = Callable[[str], Tensor]

_TINY = 1e-20  # what the model adds to a sum of sigmoids that it divides by


class ExpertTensor(NamedTuple):
    """An input that holds experts: the checkpoint's tensor, or its rounded values, or their scale.

    Attributes:
        source: of the checkpoint. inputs: the dimension that the product with it sums over.
        part: "values" or "scale" of `fulmen_backend_tensorrt.quantisation.Rounded`; empty: the tensor itself.
        form: how it is rounded. 4 bits lie in bytes of two, see `fulmen_backend_tensorrt.quantisation.pack`, "halves".
    """

    source: str
    shape: tuple[int, ...]
    dtype: Dtype | Literal["int8"]
    inputs: int
    part: Literal["", "values", "scale"] = ""
    form: Quantization = "int8"


def expert_tensors(
    config: ModelConfig, layer: int, dtype: Dtype, quantize: Quantization | None
) -> dict[str, ExpertTensor]:
    """The inputs that hold the experts of a layer, by name: that of the checkpoint, and ".scale" behind it."""
    experts, width, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
    prefix = f"blocks.{layer}.ffn.experts."
    found: dict[str, ExpertTensor] = {}
    shapes: tuple[tuple[str, tuple[int, ...], int], ...] = (
        (f"{prefix}gate_up_EGD", (experts, 2 * inner, width), 2),
        (f"{prefix}down_EFD", (experts, inner, width), 1),
    )
    for name, shape, inputs in shapes:
        form = form_of(name, shape[inputs], quantize, experts=True)
        if form is None:
            found[name] = ExpertTensor(name, shape, dtype, inputs)
            continue
        size = shape[inputs]
        stored, scales = (size // 2, size // block_of(size)) if form == "int4" else (size, 1)
        before, after = shape[:inputs], shape[inputs + 1 :]
        found[name] = ExpertTensor(name, (*before, stored, *after), "int8", inputs, "values", form)
        found[f"{name}.scale"] = ExpertTensor(name, (*before, scales, *after), dtype, inputs, "scale", form)
    return found


class _Experts(NamedTuple):
    """Inputs that hold experts; `block` is that of 4 bits, None for others."""

    values: str
    scale: str | None
    block: int | None

    def read(self, graph: GraphWriter, selected_NK: str | None = None) -> str:
        """The weights of all experts, or of the selected ones, in the graph's dtype."""

        def pick(value: str) -> str:
            return value if selected_NK is None else graph.op("Gather", value, selected_NK)

        if self.scale is None:
            return pick(self.values)
        values, scale = graph.op("Cast", pick(self.values), to=ELEMENT[graph.dtype]), pick(self.scale)
        if self.block is None:
            return graph.op("Mul", values, scale)
        leading = (0, 0) if selected_NK is None else (0, 0, 0)
        blocks = graph.op("Reshape", _halves(graph, values), graph.integers(*leading, -1, self.block))
        weights = graph.op("Mul", blocks, graph.op("Unsqueeze", scale, graph.integers(-1)))
        return graph.op("Reshape", weights, graph.integers(*leading, -1))


def _halves(graph: GraphWriter, packed: str) -> str:
    """The values of 4 bits in bytes, first those of the lower halves: [..., D/2] to [..., D]."""
    sixteen, eight = graph.scalar(16.0), graph.scalar(8.0)
    upper = graph.op("Floor", graph.op("Div", packed, sixteen))
    lower = graph.op("Sub", packed, graph.op("Mul", upper, sixteen))  # from 0 to 15: those above 7 are negative ones
    lower = graph.op("Sub", lower, graph.op("Mul", graph.op("Floor", graph.op("Div", lower, eight)), sixteen))
    return graph.op("Concat", lower, upper, axis=-1)


def write_swiglu(graph: GraphWriter, load: Load, prefix: str, x_D: str) -> str:
    """A dense network: [..., D] to [..., D]."""
    gate_up = write_product(graph, load, f"{prefix}gate_up.weight", x_D)
    return write_product(graph, load, f"{prefix}down.weight", _activate(graph, gate_up))


def write_mixture(graph: GraphWriter, config: ModelConfig, load: Load, layer: int, x_BTD: str, form: Mixture) -> str:
    """Routed experts plus the shared ones: [B, T, D] to [B, T, D]."""
    prefix = f"blocks.{layer}.ffn."
    x_ND = graph.op("Reshape", x_BTD, graph.integers(-1, config.hidden_size))
    selected_NK, weights_NK = _route(graph, config, load, prefix, x_ND)
    inputs = expert_tensors(config, layer, graph.dtype, graph.quantize)
    names = {name: graph.input(name, ELEMENT[one.dtype], one.shape) for name, one in inputs.items()}
    gate_up_EGD, down_EFD = (
        _Experts(
            name, names.get(f"{name}.scale"), block_of(config.hidden_size) if one.form == "int4" and one.part else None
        )
        for name, one in inputs.items()
        if one.part != "scale"
    )
    write = _gathered if form == "gather" else _dense
    y_ND = write(graph, config, x_ND, selected_NK, weights_NK, gate_up_EGD, down_EFD)
    if config.num_shared_experts:
        y_ND = graph.op("Add", y_ND, write_swiglu(graph, load, f"{prefix}shared.", x_ND))
    return graph.op("Reshape", y_ND, graph.op("Shape", x_BTD))


def _route(graph: GraphWriter, config: ModelConfig, load: Load, prefix: str, x_ND: str) -> tuple[str, str]:
    """Chosen experts, int64, and their weights, float32: both [N, K]. In float32 whatever is around it."""
    name = f"{prefix}router.weight"
    router_DE = graph.op("Transpose", graph.weight(name, lambda: load(name), "float32"), perm=(1, 0))
    logits_NE = graph.op("MatMul", graph.cast(x_ND, "float32"), router_DE)
    softmax = config.router_score == "softmax"
    scores_NE = graph.op("Softmax", logits_NE, axis=-1) if softmax else graph.op("Sigmoid", logits_NE)
    top_k = graph.integers(config.num_experts_per_tok)
    if config.router_bias:
        bias = graph.weight(f"{prefix}router.bias", lambda: load(f"{prefix}router.bias"), "float32")
        _, selected_NK = graph.ops("TopK", (graph.op("Add", scores_NE, bias), top_k), 2, axis=-1)
        weights_NK = graph.op("GatherElements", scores_NE, selected_NK, axis=1)
    else:
        weights_NK, selected_NK = graph.ops("TopK", (scores_NE, top_k), 2, axis=-1)
    if config.norm_topk_prob:
        total_N1 = graph.op("ReduceSum", weights_NK, graph.integers(-1), keepdims=1)
        if not softmax:
            total_N1 = graph.op("Add", total_N1, graph.scalar(_TINY, "float32"))
        weights_NK = graph.op("Div", weights_NK, total_N1)
    if config.router_scale != 1:
        weights_NK = graph.op("Mul", weights_NK, graph.scalar(config.router_scale, "float32"))
    return selected_NK, weights_NK


def _gathered(
    graph: GraphWriter,
    config: ModelConfig,
    x_ND: str,
    selected_NK: str,
    weights_NK: str,
    gate_up_EGD: _Experts,
    down_EFD: _Experts,
) -> str:
    top_k, inner = config.num_experts_per_tok, config.moe_intermediate_size
    gate_up_NKGD = gate_up_EGD.read(graph, selected_NK)
    x_N1D1 = graph.op("Unsqueeze", x_ND, graph.integers(1, 3))
    gate_up_NKG = graph.op("Squeeze", graph.op("MatMul", gate_up_NKGD, x_N1D1), graph.integers(3))
    hidden_NKF = graph.op(
        "Mul",
        _activate(graph, gate_up_NKG),
        graph.cast(graph.op("Unsqueeze", weights_NK, graph.integers(2)), graph.dtype, "float32"),
    )
    # one product sums over the chosen experts, too
    hidden_N1M = graph.op("Reshape", hidden_NKF, graph.integers(-1, 1, top_k * inner))
    down_NKFD = down_EFD.read(graph, selected_NK)
    down_NMD = graph.op("Reshape", down_NKFD, graph.integers(-1, top_k * inner, config.hidden_size))
    return graph.op("Squeeze", graph.op("MatMul", hidden_N1M, down_NMD), graph.integers(1))


def _dense(
    graph: GraphWriter,
    config: ModelConfig,
    x_ND: str,
    selected_NK: str,
    weights_NK: str,
    gate_up_EGD: _Experts,
    down_EFD: _Experts,
) -> str:
    experts, inner, width = config.num_experts, config.moe_intermediate_size, config.hidden_size
    all_E = graph.constant(np.arange(experts, dtype=np.int64).reshape(1, 1, experts))
    chosen_NKE = graph.op("Equal", graph.op("Unsqueeze", selected_NK, graph.integers(2)), all_E)
    weights_NK1 = graph.op("Unsqueeze", weights_NK, graph.integers(2))
    shares_NKE = graph.op("Where", chosen_NKE, weights_NK1, graph.scalar(0.0, "float32"))
    shares_NE = graph.op("ReduceSum", shares_NKE, graph.integers(1), keepdims=0)
    shares_NE1 = graph.cast(graph.op("Unsqueeze", shares_NE, graph.integers(2)), graph.dtype, "float32")
    rows = graph.op("Reshape", gate_up_EGD.read(graph), graph.integers(experts * 2 * inner, width))
    gate_up = graph.op("MatMul", x_ND, graph.op("Transpose", rows, perm=(1, 0)))
    gate_up_NEG = graph.op("Reshape", gate_up, graph.integers(-1, experts, 2 * inner))
    hidden_NEF = graph.op("Mul", _activate(graph, gate_up_NEG), shares_NE1)
    hidden = graph.op("Reshape", hidden_NEF, graph.integers(-1, experts * inner))
    return graph.op("MatMul", hidden, graph.op("Reshape", down_EFD.read(graph), graph.integers(experts * inner, width)))


def _activate(graph: GraphWriter, gate_up_G: str) -> str:
    """``silu(gate) * up`` of a last dimension that holds the gate, then up."""
    gate_F, up_F = graph.ops("Split", (gate_up_G,), 2, axis=-1, num_outputs=2)
    return graph.op("Mul", graph.op("Mul", gate_F, graph.op("Sigmoid", gate_F)), up_F)
