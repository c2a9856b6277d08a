"""Writing an ONNX graph node by node: typed constants in the file, weights as external data beside it.

The graphs of this package are written, not traced: every operator and every type is one that TensorRT's parser and
builder take in a strongly typed network, and writing takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from fulmen_backend_tensorrt.quantisation import TORCH
from fulmen_core.backend import Dtype, Quantization

OPSET = 24  # the first with TensorScatter
#: How a tensor is stored: in a precision of arithmetic, or rounded.
Stored = Dtype | Quantization
ELEMENT: dict[Stored, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
    "int4": TensorProto.INT4,
    "fp8": TensorProto.FLOAT8E4M3FN,
}

_ALIGNMENT = 4096  # runtimes map the file into memory
_IR_VERSION = 11  # what opset 24 came with, and ONNX Runtime 1.32 and the parsers read


class WeightFile:
    """A file of tensors that several graphs refer to; each tensor is stored once, under its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")
        self._protos: dict[str, TensorProto] = {}

    def add(self, name: str, load: Callable[[], Tensor], dtype: Stored) -> TensorProto:
        """The reference to the tensor of that name, which `load` gives if it is not stored yet.

        `load` gives rounded tensors as they are to be stored: 4 bits as bytes of two.
        """
        if name not in self._protos:
            tensor = load().detach().contiguous()
            tensor = tensor.to(TORCH[dtype]) if dtype in TORCH else tensor
            shape = (*tensor.shape[:-1], 2 * tensor.shape[-1]) if dtype == "int4" else tensor.shape
            self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
            offset = self._file.tell()
            self._file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            proto = TensorProto(name=name, data_type=ELEMENT[dtype], dims=shape)
            proto.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.path.name), ("offset", offset), ("length", tensor.nbytes)):
                proto.external_data.add(key=key, value=str(value))
            self._protos[name] = proto
        return self._protos[name]

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class GraphWriter:
    """A graph that grows. Values are their names.

    Attributes:
        dtype: of weights and arithmetic where no other is given.
        quantize: how the weights of products are rounded.
        ranges: for FP8, the largest magnitude that each matrix is multiplied by, under its name.
    """

    def __init__(
        self,
        dtype: Dtype,
        weights: WeightFile,
        quantize: Quantization | None = None,
        ranges: Mapping[str, float] | None = None,
    ) -> None:
        self.dtype, self.quantize, self.ranges, self._weights = dtype, quantize, ranges or {}, weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, element: int, shape: Sequence[int | str]) -> str:
        """Declare an input; a dimension with a name may vary."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(self, name: str, element: int, shape: Sequence[int | str]) -> None:
        """Declare that a value, named by `op`, is an output."""
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))

    def weight(self, name: str, load: Callable[[], Tensor], dtype: Stored | None = None) -> str:
        """A tensor that lies in the file of weights."""
        self._initializers.setdefault(name, self._weights.add(name, load, dtype or self.dtype))
        return name

    def matrix(self, name: str, load: Callable[[], Tensor]) -> str:
        """A checkpoint's matrix [A, D] as [D, A], for a product."""
        return self.op("Transpose", self.weight(name, load), perm=(1, 0))

    def constant(self, value: NDArray[Any]) -> str:
        """A small tensor that lies in the graph; equal ones are one."""
        name = f"constant_{value.dtype}_{'x'.join(map(str, value.shape))}_{value.tobytes().hex()[:40]}"
        if len(value.tobytes()) > 20:
            name += f"_{len(self._initializers)}"
        self._initializers.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, dtype: Dtype | None = None) -> str:
        """A constant of no dimensions."""
        dtype = dtype or self.dtype
        name = f"scalar_{dtype}_{value!r}"
        self._initializers.setdefault(name, helper.make_tensor(name, ELEMENT[dtype], (), [value]))
        return name

    def zero(self, stored: Stored) -> str:
        """The constant zero of a type, which says what QuantizeLinear rounds to."""
        name = f"zero_{stored}"
        self._initializers.setdefault(name, TensorProto(name=name, data_type=ELEMENT[stored], raw_data=b"\0"))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node with one output, which gets the name if one is given, and return that."""
        return self.ops(kind, inputs, [name] if name else 1, **attributes)[0]

    def ops(self, kind: str, inputs: Iterable[str], outputs: int | list[str], **attributes: Any) -> list[str]:
        """Append a node with so many outputs, or with those of these names, and return them."""
        stem = f"{kind.lower()}_{len(self._nodes)}"
        names = [f"{stem}_{index}" for index in range(outputs)] if isinstance(outputs, int) else outputs
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=stem, **attributes))
        return names

    def cast(self, value: str, dtype: Dtype, source: Dtype | None = None) -> str:
        """The value in another dtype; itself if it has that."""
        return value if dtype == (source or self.dtype) else self.op("Cast", value, to=ELEMENT[dtype])

    def model(self, name: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The graph as a model."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="fulmen-backend-tensorrt",
        )
        helper.set_model_props(model, dict(metadata))
        return model
