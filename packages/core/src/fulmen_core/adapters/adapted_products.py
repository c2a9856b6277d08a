"""Adapters in a PyTorch runner: each projection of the model adds, for the rows that have an adapter, its change.

That is a hook behind the projection, so that the forward pass knows nothing of adapters.

Legend: N rows of the step, G rows of one adapter, R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fulmen_core.adapters.adapter import Adapter
from fulmen_core.adapters.projections import Projection
from fulmen_core.model.block import Block
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import SequenceStep


class AdaptedProducts:
    """The adapters of one model, and which rows of the step at hand have which.

    Args:
        model: its projections get hooks.
    """

    def __init__(self, model: Transformer) -> None:
        self._rows: dict[int, Tensor] = {}  # of each adapter in the step
        self._products: list[_Product] = []
        self._device = model.embed.weight.device
        for layer in model.plan:
            for linear, parts in _projections(model.block(layer.index)):
                product = _Product(layer.index, parts, self._rows, self._device)
                linear.register_forward_hook(product.add)
                self._products.append(product)

    def put(self, number: int, adapter: Adapter) -> None:
        """Take `adapter` as `number`."""
        for product in self._products:
            product.put(number, adapter)

    def drop(self, number: int) -> None:
        """Forget `number`."""
        for product in self._products:
            product.deltas.pop(number, None)

    def begin(self, steps: Sequence[SequenceStep]) -> None:
        """Say whose the rows of the next forward pass are: all of `steps`, one sequence after the other."""
        adapters_N = torch.tensor([step.adapter for step in steps for _ in step.token_ids])
        self._rows.clear()
        for number in sorted({step.adapter for step in steps} - {0}):
            self._rows[number] = (adapters_N == number).nonzero()[:, 0].to(self._device)


class _Product:
    """One projection's weight, which may hold several of Hugging Face's: equal parts of its outputs."""

    def __init__(
        self, layer: int, parts: Sequence[Projection], rows: Mapping[int, Tensor], device: torch.device
    ) -> None:
        self._layer, self._parts, self._rows, self._device = layer, parts, rows, device
        self.deltas: dict[int, list[tuple[int, Tensor, Tensor]]] = {}  # by adapter: part, A, B

    def put(self, number: int, adapter: Adapter) -> None:
        found = [(part, adapter.deltas.get((self._layer, name))) for part, name in enumerate(self._parts)]
        deltas = [(part, self._on_device(d.a_RI), self._on_device(d.b_OR)) for part, d in found if d is not None]
        if deltas:
            self.deltas[number] = deltas

    def _on_device(self, matrix: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(matrix).to(self._device)

    def add(self, module: nn.Module, inputs: tuple[Tensor], y: Tensor) -> None:  # noqa: ARG002 - what hooks are given
        """Add the changes to `y`, [N, O] or [1, N, O], the product of `inputs`."""
        x_NI, y_NO = inputs[0].flatten(0, -2), y.view(-1, y.shape[-1])
        for number, rows_G in self._rows.items():
            for part, a_RI, b_OR in self.deltas.get(number, ()):
                delta_GO = F.linear(F.linear(x_NI[rows_G].float(), a_RI), b_OR)
                y_GO = y_NO.chunk(len(self._parts), dim=-1)[part]
                y_GO[rows_G] = (y_GO[rows_G] + delta_GO).to(y.dtype)


def _projections(block: Block) -> list[tuple[nn.Linear, list[Projection]]]:
    """The weights of `block` that adapters change, and which projections each is made of."""
    attention = block.attention
    found: list[tuple[nn.Linear, list[Projection]]] = [(attention.q_proj, ["q"]), (attention.o_proj, ["o"])]
    if attention.kv_proj is not None:
        found.append((attention.kv_proj, ["k", "v"]))
    if attention.gate_proj is not None:
        found.append((attention.gate_proj, ["attention_gate"]))
    dense = block.ffn if isinstance(block.ffn, DenseFeedForward) else block.ffn.shared
    if dense is not None:
        found += [(dense.gate_up, ["gate", "up"]), (dense.down, ["down"])]
    return found
