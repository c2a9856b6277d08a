"""Products with a matrix of the checkpoint, in the precision that was asked for.

* 8 bits and 4 bits: the weights alone are rounded, constants behind a DequantizeLinear.
* FP8: weights and what they are multiplied by are 8-bit floats, between a QuantizeLinear and a DequantizeLinear, from
  which TensorRT makes products of 8-bit floats. The scale of the latter is one number, known before: what maps the
  largest magnitude that the checkpoint was seen to multiply to the largest 8-bit float (arXiv 2209.05433).

Legend: A outputs, D inputs of a product, b block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from torch import Tensor

from fulmen_backend_tensorrt.graph_writer import GraphWriter
from fulmen_backend_tensorrt.quantisation import LARGEST_FP8, Rounded, block_of, form_of, pack, quantise
from fulmen_core.backend import Quantization

Load = Callable[[str], Tensor]

_LEAST = 1e-2  # of the magnitudes that were seen, so that 16 bits hold the scale well


def write_product(graph: GraphWriter, load: Load, name: str, x_D: str) -> str:
    """``x @ weight.T`` for the checkpoint's matrix [A, D] of that name: [..., D] to [..., A]."""
    form = form_of(name, load(name).shape[-1], graph.quantize)
    if form is None:
        return graph.op("MatMul", x_D, graph.matrix(name, lambda: load(name)))
    rounded = cache(partial(quantise, load(name), -1, graph.dtype, form))
    weight_DA = graph.op("Transpose", _dequantised(graph, name, form, load(name).shape[-1], rounded), perm=(1, 0))
    if form == "fp8":
        x_D = _through_fp8(graph, x_D, graph.ranges[name])
    return graph.op("MatMul", x_D, weight_DA)


def _dequantised(graph: GraphWriter, name: str, form: Quantization, inputs: int, rounded: Callable[[], Rounded]) -> str:
    def values() -> Tensor:
        return pack(rounded().values, "adjoining") if form == "int4" else rounded().values

    blocks = form == "int4"
    stored = graph.weight(f"{name}.{form}", values, form)
    scale = graph.weight(f"{name}.scale", lambda: rounded().scale if blocks else rounded().scale.squeeze(-1))
    placed: dict[str, Any] = {"axis": 1, "block_size": block_of(inputs)} if blocks else {"axis": 0}
    return graph.op("DequantizeLinear", stored, scale, **placed)


def _through_fp8(graph: GraphWriter, x_D: str, largest: float) -> str:
    scale = graph.scalar(max(largest, _LEAST) / LARGEST_FP8)
    zero = graph.zero("fp8")
    return graph.op("DequantizeLinear", graph.op("QuantizeLinear", x_D, scale, zero), scale, zero)
