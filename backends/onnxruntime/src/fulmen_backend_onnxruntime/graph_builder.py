"""Writes an ONNX graph node by node: names, small constants, and weights that lie beside the graph."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fulmen_backend_onnxruntime.external_data import ExternalData, Place

CONTRIB = "com.microsoft"
#: The first with RMSNormalization.
OPSET = 23
_IR_VERSION = 10

Shape = Sequence[int | str]


class GraphBuilder:
    """A graph that grows. Values are known by the names that the methods return.

    Args:
        data: takes the weights.
    """

    def __init__(self, data: ExternalData) -> None:
        self._data = data
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope = ""

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` before the names of what is made inside."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    @property
    def scoped(self) -> str:
        """What the names of new things begin with."""
        return self._scope

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        """An input of the graph, of NumPy's `dtype`; dimensions with names may vary."""
        self._inputs.append(helper.make_tensor_value_info(name, _onnx_dtype(dtype), shape))
        return name

    def optional_input(self, name: str, default: NDArray[Any], shape: Shape) -> str:
        """An input that has a value if the caller gives none: one that is an initializer, too."""
        self._initializers[name] = numpy_helper.from_array(default, name)
        return self.input(name, str(default.dtype), shape)

    def output(self, value: str, name: str, dtype: str, shape: Shape) -> None:
        """Make `value` an output of the graph."""
        if value != name:
            producer = next(node for node in reversed(self._nodes) if value in node.output)
            producer.output[list(producer.output).index(value)] = name
            for node in self._nodes:
                for index, operand in enumerate(node.input):
                    if operand == value:
                        node.input[index] = name
        self._outputs.append(helper.make_tensor_value_info(name, _onnx_dtype(dtype), shape))

    def node(self, operator: str, *operands: str | None, domain: str = "", **attributes: Any) -> str:
        """The one output of a new node."""
        return self.nodes(operator, 1, *operands, domain=domain, **attributes)[0]

    def nodes(
        self,
        operator: str,
        outputs: int,
        *operands: str | None,
        domain: str = "",
        unused: Collection[int] = (),
        **attributes: Any,
    ) -> list[str]:
        """The outputs of a new node. An operand that is None is left out; `unused` outputs have no name."""
        name = f"{self._scope}{operator}.{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}:{n}" if n not in unused else "" for n in range(outputs)]
        given = [operand or "" for operand in operands]
        self._nodes.append(helper.make_node(operator, given, names, name, domain=domain, **attributes))
        return names

    def contrib(self, operator: str, *operands: str | None, **attributes: Any) -> str:
        """The one output of one of ONNX Runtime's own operators."""
        return self.node(operator, *operands, domain=CONTRIB, **attributes)

    def constant(self, value: NDArray[Any] | Sequence[int] | int | float, dtype: str = "int64") -> str:
        """A small constant, kept in the graph itself; equal ones are one."""
        array = np.asarray(value, np.dtype(dtype))
        name = f"constant.{dtype}.{'x'.join(map(str, array.shape))}.{array.tobytes().hex()[:64]}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A weight in the file beside the graph, whatever its size; its name begins with the scope."""
        return self._place(self._scope + name, self._data.add(array), array.dtype, array.shape)

    def view(self, name: str, source: str, shape: Sequence[int]) -> str:
        """The bytes of the weight `source` under another name and shape: they are stored once."""
        stored = self._initializers[source]
        fields = {entry.key: entry.value for entry in stored.external_data}
        place = Place(int(fields["offset"]), int(fields["length"]))
        return self._place(self._scope + name, place, helper.tensor_dtype_to_np_dtype(stored.data_type), shape)

    def _place(self, name: str, place: Place, dtype: np.dtype[Any], shape: Sequence[int]) -> str:
        tensor = TensorProto(name=name, data_type=_onnx_dtype(dtype), dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        fields = {"location": self._data.name, "offset": str(place.offset), "length": str(place.length)}
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=value)
        self._initializers[name] = tensor
        return name

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The whole graph."""
        graph = helper.make_graph(self._nodes, "fulmen", self._inputs, self._outputs, list(self._initializers.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="fulmen")
        helper.set_model_props(model, dict(metadata))
        return model


def _onnx_dtype(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
