"""The memory of the caches, in blocks, and the tables that say which blocks hold a sequence.

Full caches: the engine's pages, a block each. Window caches: each slot owns a ring of blocks, and positions
``32 b .. 32 b + 31`` lie in its block ``b`` modulo their number. Imports no torch.

Legend: S sequences, K kv heads, h head width, W window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray

from fulmen_backend_openvino.paging import BLOCK_TOKENS, TableInputs, cache_input
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import CacheLayout, EngineLimits

#: A window's ring has room for chunks of this many tokens, or as many as the window; longer ones are divided.
_CHUNK = 256


class Span(NamedTuple):
    """What a run computes of a sequence: positions ``start .. end - 1`` of `slot`, whose full caches lie in `pages`."""

    slot: int
    start: int
    end: int
    pages: Sequence[int]


@dataclass(frozen=True, slots=True)
class Ring:
    """The blocks that each slot owns of the caches of one window."""

    window: int
    blocks: int

    @classmethod
    def of(cls, window: int, chunk: int) -> Ring:
        """A ring that holds what `chunk` tokens and the keys before them touch, wherever they begin."""
        return cls(window, -(-(window - 1 + chunk - 1) // BLOCK_TOKENS) + 1)

    @property
    def rewind(self) -> int:
        """Tokens that may be taken back: what the next one sees is still there."""
        return (self.blocks - 1) * BLOCK_TOKENS + 1 - (self.window - 1)

    def table(self, span: Span) -> tuple[int, Sequence[int]]:
        """Positions before `span` that are covered, and their blocks and those of the span, oldest first."""
        first = max(0, span.start - self.window + 1) // BLOCK_TOKENS
        last = (span.end - 1) // BLOCK_TOKENS
        base = span.slot * self.blocks
        return span.start - first * BLOCK_TOKENS, [base + b % self.blocks for b in range(first, last + 1)]


class KVBlocks:
    """All caches of a compiled graph.

    Args:
        cache: the layer plan's arithmetic.
        limits: the engine's, with the context already cut to the model's.
        inputs: for each cache's input the type and the shape of a block, [K, 32, h] with what quantisation adds.
    """

    def __init__(
        self, cache: CacheSpec, limits: EngineLimits, inputs: Mapping[str, tuple[openvino.Type, Sequence[int]]]
    ) -> None:
        windows = [group.window for group in cache.groups if group.window is not None]
        # one that outlasts the context never comes round
        self.chunk = min(limits.max_step_tokens, max(_CHUNK, *windows)) if windows else limits.max_step_tokens
        reach = max(self.chunk, limits.draft_tokens)
        self.rings = {window: Ring.of(min(window, limits.max_context), reach) for window in windows}
        whole = -(-limits.max_context // BLOCK_TOKENS)
        pages = -(-limits.kv_tokens // BLOCK_TOKENS) if limits.kv_tokens else limits.max_sequences * whole
        self.layout = CacheLayout(
            slots=limits.slots,
            page_tokens=BLOCK_TOKENS,
            pages=max(pages, whole),
            rewind=min((ring.rewind for ring in self.rings.values()), default=limits.max_context),
        )
        self._arrays: dict[int | None, list[NDArray[Any]]] = {group.window: [] for group in cache.groups}
        self.tensors: dict[str, openvino.Tensor] = {}
        for group in cache.groups:
            count = self.layout.pages if group.window is None else limits.slots * self.rings[group.window].blocks
            for number in group.caches:
                for kind in ("key", "value"):
                    name = cache_input(number, kind)
                    element, shape = inputs[name]
                    # zeros: the operating system commits memory when it is first written
                    array = np.zeros((count, int(np.prod(shape)) * element.size), np.uint8)
                    self._arrays[group.window].append(array)
                    self.tensors[name] = openvino.Tensor(array, openvino.Shape([count, *shape]), element)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return sum(array.nbytes for arrays in self._arrays.values() for array in arrays)

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` of the full caches what page `source` is."""
        for array in self._arrays.get(None, ()):
            array[target] = array[source]

    def copy_slot(self, source: int, target: int) -> None:
        """Make the windows of slot `target` those of `source`."""
        for window, ring in self.rings.items():
            for array in self._arrays[window]:
                by_slot = array.reshape(self.layout.slots, ring.blocks, -1)
                by_slot[target] = by_slot[source]

    def tables(self, spans: Sequence[Span]) -> dict[str, NDArray[np.int32]]:
        """The table inputs of a run, for every group of caches."""
        arrays: dict[str, NDArray[np.int32]] = {}
        for window in self._arrays:
            table = _paged if window is None else self.rings[window].table
            rows = [table(span) for span in spans]
            names = TableInputs.of(window)
            past_S = np.array([past for past, _ in rows], np.int32)
            counts_S = np.array([span.end - span.start for span in spans], np.int32)
            arrays[names.past] = past_S
            arrays[names.blocks] = np.array([block for _, blocks in rows for block in blocks], np.int32)
            arrays[names.begins] = np.cumsum([0, *(len(blocks) for _, blocks in rows)], dtype=np.int32)
            arrays[names.longest] = np.array((past_S + counts_S).max(), np.int32)
        return arrays


def _paged(span: Span) -> tuple[int, Sequence[int]]:
    return span.start, span.pages[: -(-span.end // BLOCK_TOKENS)]
