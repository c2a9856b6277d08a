"""An adapter's arrays into the native kernels' layout: the changes of each product, stacked as its weight is.

Legend: R rank, of all projections in a product together, I inputs, O outputs of a product.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_cpu.native_library import Product, check
from fulmen_backend_cpu.native_weights import alternating_rows
from fulmen_core.adapters.adapter import Adapter
from fulmen_core.adapters.projections import Projection, ProjectionPlace, projection_places
from fulmen_core.model.config import ModelConfig

#: The projections in each product, in the order of its weight's rows.
_PRODUCTS: dict[Product, tuple[Projection, ...]] = {
    Product.QKV: ("q", "k", "v", "attention_gate"),
    Product.OUT: ("o",),
    Product.GATE_UP: ("gate", "up"),
    Product.DOWN: ("down",),
}


class AdapterPacker:
    """Hands adapters to a native model.

    Args:
        library: the loaded kernels.
        handle: a model of `fulmen_new`.
        config: of the model.
    """

    def __init__(self, library: ctypes.CDLL, handle: int, config: ModelConfig) -> None:
        self._library, self._handle = library, handle
        self._places = {(place.layer, place.projection): place for place in projection_places(config).values()}
        self._layers = config.num_hidden_layers

    def put(self, number: int, adapter: Adapter) -> None:
        """Take `adapter` as `number`.

        Raises:
            MemoryError: there is not enough memory; a part may have been taken.
        """
        for layer in range(self._layers):
            for product, projections in _PRODUCTS.items():
                places = [self._places[layer, name] for name in projections if (layer, name) in self._places]
                if any((layer, place.projection) in adapter.deltas for place in places):
                    self._put(number, layer, product, *_stacked(adapter, places))

    def drop(self, number: int) -> None:
        """Give back the memory of `number`, if it has some."""
        self._library.fulmen_drop_adapter(self._handle, number)

    def _put(
        self, number: int, layer: int, product: Product, a_RI: NDArray[np.float32], b_OR: NDArray[np.float32]
    ) -> None:
        outputs, rank = b_OR.shape
        alternate = product is Product.GATE_UP
        rows = alternating_rows(outputs // 2).numpy() if alternate else np.arange(outputs, dtype=np.int32)
        check(
            self._library,
            self._library.fulmen_set_delta(
                self._handle,
                number,
                layer,
                product,
                a_RI.ctypes.data,
                b_OR.ctypes.data,
                rank,
                a_RI.shape[1],
                rows.ctypes.data,
                len(rows),
            ),
        )


def _stacked(adapter: Adapter, places: list[ProjectionPlace]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A of all projections one above the other, and B of each in its rows and its columns, zero elsewhere."""
    found = [adapter.deltas.get((place.layer, place.projection)) for place in places]
    a_RI = np.concatenate([delta.a_RI for delta in found if delta is not None])
    b_OR = np.zeros((sum(place.outputs for place in places), len(a_RI)), np.float32)
    row = column = 0
    for place, delta in zip(places, found, strict=True):
        if delta is not None:
            rank = len(delta.a_RI)
            b_OR[row : row + place.outputs, column : column + rank] = delta.b_OR
            column += rank
        row += place.outputs
    return a_RI, b_OR
