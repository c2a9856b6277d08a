"""How the weights of a model become weights of the graph: as they are, in half precision, or quantised.

Arithmetic is float32 in each of them. ONNX Runtime's CPU kernels have no products in half precision, so weights that
are stored in float16 are widened when a session opens. Quantised products round their input to 8 bits, too.

Legend: N outputs, K inputs, M rows, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from fulmen_backend_onnxruntime.block_quantization import ROUNDED_INPUT, Bits, block_size, quantize
from fulmen_backend_onnxruntime.graph_builder import GraphBuilder
from fulmen_core.errors import CapabilityError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """In what form weights are kept.

    Attributes:
        dtype: of those that are not quantised, and of the caches.
        bits: of experts and of dense layers' gate and up; None: nothing is quantised. All else has 8: 4 would harm it
            most, and it is less.
        block: inputs that share a scale, or fewer where it does not divide an expert's widths.
        longest: the same of products that are no experts', where it, or a half of it, divides their inputs.
        smooth: whether outliers of the inputs are moved into the weights first: see `smoothing`.
    """

    dtype: Literal["float32", "float16"] = "float32"
    bits: Bits | None = None
    block: int = 0
    longest: int = 0
    smooth: bool = False

    @property
    def other_bits(self) -> Bits | None:
        """Of attention, dense layers' down, and the head."""
        return None if self.bits is None else 8


def dense_block(inputs: int, form: WeightFormat) -> int:
    """The block of a product of so many inputs: the form's longest, halved until it divides them, or its usual one."""
    return max(form.block, block_size((inputs,), form.longest) or 0)


class Products:
    """Adds weights, and products with them, to a graph."""

    def __init__(self, graph: GraphBuilder, form: WeightFormat) -> None:
        self.graph, self.form = graph, form

    def dense(self, x: str, name: str, weight_NK: Array, bits: Bits | None) -> str:
        """``x @ weight.T``, quantised to `bits`; None: not."""
        if bits is None:
            return self.graph.node("MatMul", x, self.computable(name, weight_NK.T))
        block = dense_block(weight_NK.shape[1], self.form)
        data, scales = quantize(weight_NK, bits, block)
        data_name, scales_name = self.graph.weight(name, data), self.graph.weight(f"{name}.scales", scales)
        return self.quantized_product(x, data_name, scales_name, weight_NK.shape, bits, block)

    def quantized_product(self, x: str, data: str, scales: str, shape: tuple[int, ...], bits: Bits, block: int) -> str:
        """``x @ weight.T`` with a quantised weight of `shape` [N, K] that the graph has."""
        return self.graph.contrib(
            "MatMulNBits",
            x,
            data,
            scales,
            N=shape[0],
            K=shape[1],
            bits=bits,
            block_size=block,
            accuracy_level=ROUNDED_INPUT,
        )

    def exact(self, x: str, name: str, weight_NK: Array) -> str:
        """``x @ weight.T``, never rounded: for routers, where rounding would choose other experts."""
        return self.graph.node("MatMul", x, self.graph.weight(name, weight_NK.T))

    def computable(self, name: str, array: Array) -> str:
        """A weight that is not quantised, float32 for the nodes that use it."""
        return self.widened(self.stored(name, array))

    def stored(self, name: str, array: Array) -> str:
        """A weight that is not quantised, in the dtype that it is stored in."""
        if self.form.dtype == "float32":
            return self.graph.weight(name, array)
        half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise CapabilityError(
                f"{self.graph.scoped}{name} holds values that float16 cannot", remedy="choose --dtype float32"
            )
        return self.graph.weight(name, half)

    def widened(self, value: str) -> str:
        """A value of the form's dtype in float32."""
        return value if self.form.dtype == "float32" else self.graph.node("Cast", value, to=TensorProto.FLOAT)

    def narrowed(self, value: str) -> str:
        """A float32 value in the form's dtype."""
        return value if self.form.dtype == "float32" else self.graph.node("Cast", value, to=TensorProto.FLOAT16)


class Vocabulary:
    """The table of embeddings and the head. If they are tied, they are stored once: quantised, if products are.

    Args:
        head_VD: None: the head is the table.
        scale: multiplies embeddings, not logits.
    """

    def __init__(self, products: Products, embedding_VD: Array, head_VD: Array | None, scale: float) -> None:
        self._products, self._graph = products, products.graph
        self._embedding_VD, self._head_VD, self._scale = embedding_VD, head_VD, np.float32(scale)
        # the lookup takes no block that is cut short
        self._block = None if products.form.bits is None else block_size(embedding_VD.shape[1:], products.form.block)
        self._shared = head_VD is None and self._block is not None
        if self._block is not None and self._shared:
            data, scales = quantize(embedding_VD, 8, self._block)
            self._table = self._graph.weight("embedding", data.reshape(embedding_VD.shape))
            self._scales = self._graph.weight("embedding.scales", scales)
        elif head_VD is None:
            self._table = products.stored("embedding", embedding_VD)
        else:
            self._table = products.stored("embedding", embedding_VD * self._scale)

    def embed(self, ids_BT: str) -> str:
        """Embeddings [B, T, D]; those of negative ids are some vector."""
        graph = self._graph
        if self._shared:
            x_BTD = graph.contrib(
                "GatherBlockQuantized",
                self._table,
                ids_BT,
                self._scales,
                bits=8,
                block_size=self._block,
                quantize_axis=1,
            )
        else:
            x_BTD = self._products.widened(graph.node("Gather", self._table, ids_BT))
        if self._head_VD is None and self._scale != 1:
            x_BTD = graph.node("Mul", x_BTD, graph.constant(float(self._scale), "float32"))
        return x_BTD

    def logits(self, hidden_MD: str) -> str:
        """Logits [M, V] in float32."""
        vocabulary, width = self._embedding_VD.shape
        if self._block is not None and self._shared:
            data = self._graph.view("head", self._table, (vocabulary, width // self._block, self._block))
            return self._products.quantized_product(hidden_MD, data, self._scales, (vocabulary, width), 8, self._block)
        head_VD = self._embedding_VD if self._head_VD is None else self._head_VD
        if self._head_VD is None and self._products.form.bits is None:
            return self._graph.node("Gemm", hidden_MD, self._products.widened(self._table), transB=1)
        return self._products.dense(hidden_MD, "head", head_VD, self._products.form.other_bits)
