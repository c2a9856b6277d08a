"""Keys and values of all sequences on the device: pages for full caches, rings for windows, both in whole blocks.

In: the layer plan's caches and the runner's layout. Out: places to write to and to read from.

Position p of a sequence lies in its p // P-th block. A full cache's blocks are the sequence's pages; a window's are
those of its slot's ring, one after the other and round again. One more page, and one more ring, are scratch: what fills
up a step of fixed size is written there.

Legend: P places of a cache, K kv heads, h head width. A cache is ``[P, K, h]``: what one position holds lies together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.paged_steps import ring_tokens
from fulmen_core.runner import CacheLayout, EngineLimits


class Cache(NamedTuple):
    """The memory of one cache of the layer plan.

    Attributes:
        k_PKh, v_PKh: keys and values.
        window: of the layers that read it; None is full attention.
        unit: places of a page, or of a slot's ring.
    """

    k_PKh: Tensor
    v_PKh: Tensor
    window: int | None
    unit: int

    def copy_unit(self, source: int, target: int) -> None:
        """Make page, or ring, `target` what `source` is."""
        for x_PKh in (self.k_PKh, self.v_PKh):
            x_PKh.narrow(0, target * self.unit, self.unit).copy_(x_PKh.narrow(0, source * self.unit, self.unit))


class PagedCache:
    """The caches of a model, numbered as the layer plan numbers them.

    Args:
        config: of the model.
        layout: slots and pages.
        limits: for the size of rings.
        block_tokens: places of a block.
        dtype: of keys and values.
        device: where they lie.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: CacheLayout,
        limits: EngineLimits,
        *,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        caches: dict[int, Cache] = {}
        for group in CacheSpec.of(config).groups:
            if group.window is None:
                unit, units = layout.page_tokens, layout.pages
            else:
                unit, units = ring_tokens(group.window, limits, block_tokens), layout.slots
            shape = ((units + 1) * unit, config.num_key_value_heads, config.head_dim)
            for number in group.caches:
                # Zeros: kernels that read whole blocks and weigh some of it with zero must find numbers there.
                k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
                caches[number] = Cache(k, v, group.window, unit)
        self._caches = [caches[number] for number in range(len(caches))]

    def __getitem__(self, number: int) -> Cache:
        return self._caches[number]

    @property
    def nbytes(self) -> int:
        """Bytes allocated, scratch included."""
        return sum(cache.k_PKh.nbytes + cache.v_PKh.nbytes for cache in self._caches)

    def copy_slot(self, source: int, target: int) -> None:
        """Make the windows of slot `target` those of `source`."""
        self._copy(source, target, pages=False)

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` of the full caches what page `source` is."""
        self._copy(source, target, pages=True)

    def _copy(self, source: int, target: int, *, pages: bool) -> None:
        for cache in self._caches:
            if (cache.window is None) == pages:
                cache.copy_unit(source, target)
