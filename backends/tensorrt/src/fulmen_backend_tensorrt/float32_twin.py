"""The same graph in float32: what a CPU can compute to prove a graph that was written for a GPU's 16-bit arithmetic.

Operators, shapes, and weights, as they were rounded, stay; only the types change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def float32_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The twin of a model whose weights are loaded. The model itself is used up."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type in _HALVES:
            kind.elem_type = TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type in _HALVES:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        if node.op_type == "Cast":
            (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
            to.i = TensorProto.FLOAT if to.i in _HALVES else to.i
    return model
