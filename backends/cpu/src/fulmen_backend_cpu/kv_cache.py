"""Keys and values of all slots, in the least memory the layer plan allows: full caches as long as the context, windows
as rings.

In: the model's config and the engine's limits. Out: writes of new keys and values, and what a step may attend to.

Legend: B sequences in a batch, T new tokens, S keys, K kv heads, h head width. A cache is ``[slots, K, capacity, h]``:
the keys of one head lie in one block, which is what attention reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits


class _Cache(NamedTuple):
    k: Tensor
    v: Tensor
    window: int | None

    @property
    def capacity(self) -> int:
        return self.k.shape[2]


class KVCache:
    """The memory of `limits.slots` sequences: for each, exactly
    `CacheSpec.bytes_per_sequence(max_context)` bytes.

    Token `p` of a window cache lies at place ``p % capacity``. A chunk attends to the ring's old tokens and to itself
    before it is written, so a ring needs no room for chunks. Nothing that an earlier user of a slot left there is ever
    read.
    """

    def __init__(self, config: ModelConfig, limits: EngineLimits, dtype: torch.dtype) -> None:
        caches: dict[int, _Cache] = {}
        for group in CacheSpec.of(config).groups:
            capacity = group.tokens(limits.max_context)
            shape = (limits.slots, config.num_key_value_heads, capacity, config.head_dim)
            for number in group.caches:
                # Zeros rather than empty: the operating system then commits memory when it is first written.
                caches[number] = _Cache(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype), group.window)
        self._caches = [caches[number] for number in range(len(caches))]
        self._cleaned = [0] * limits.slots

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(cache.k.nbytes + cache.v.nbytes for cache in self._caches)

    def forget(self, slot: int) -> None:
        """Take whatever `slot` holds for garbage."""
        self._cleaned[slot] = 0

    def fill(self, slot: int, value: float) -> None:
        """Set every element of a slot."""
        for cache in self._caches:
            cache.k[slot] = value
            cache.v[slot] = value

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make `target` hold the first `tokens` tokens of `source`, or of a window its last."""
        for cache in self._caches:
            end = min(tokens, cache.capacity)
            cache.k[target, :, :end] = cache.k[source, :, :end]
            cache.v[target, :, :end] = cache.v[source, :, :end]
        self._cleaned[target] = 0

    def write_tokens(self, number: int, slots_B: Tensor, positions_B: Tensor, k_BKh: Tensor, v_BKh: Tensor) -> None:
        """Write one token of each of B sequences into cache `number`."""
        cache = self._caches[number]
        at_B = positions_B % cache.capacity
        cache.k[slots_B, :, at_B] = k_BKh
        cache.v[slots_B, :, at_B] = v_BKh

    def clean(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Zero the places beyond each sequence's `lengths` tokens that `padded` would hand out for the longest of them.

        A mask gives such a place the weight zero, but zero times a stale NaN is NaN. Each place is cleaned once a
        sequence.
        """
        longest = max(lengths)
        for slot, length in zip(slots, lengths, strict=True):
            begin = max(length, self._cleaned[slot])
            if begin < longest:
                for cache in self._caches:
                    cache.k[slot, :, begin:longest] = 0
                    cache.v[slot, :, begin:longest] = 0
                self._cleaned[slot] = longest

    def padded(self, number: int, slots: Sequence[int], slots_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """The first ``S = min(longest, capacity)`` places of these slots, [B, K, S, h]: views if the slots adjoin."""
        cache = self._caches[number]
        k, v = cache.k[:, :, :longest], cache.v[:, :, :longest]
        first, last = slots[0], slots[-1]
        if last - first + 1 == len(slots):  # the runner sorts them
            return k[first : last + 1], v[first : last + 1]
        return k.index_select(0, slots_B), v.index_select(0, slots_B)

    def written(self, number: int, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """The places that a sequence of `length` tokens has written, [1, K, min(length, capacity), h]: views."""
        cache = self._caches[number]
        return cache.k[slot : slot + 1, :, :length], cache.v[slot : slot + 1, :, :length]

    def extend(self, number: int, slot: int, start: int, k_KTh: Tensor, v_KTh: Tensor) -> tuple[Tensor, Tensor]:
        """Append a chunk that begins at `start`; return the keys and values that it may see, oldest first: [K, S, h].

        The last T of them are the chunk itself. A full cache returns all ``start + T``, a window the ``window - 1``
        before it.
        """
        cache = self._caches[number]
        end = start + k_KTh.shape[1]
        if cache.window is None:
            cache.k[slot, :, start:end] = k_KTh
            cache.v[slot, :, start:end] = v_KTh
            return cache.k[slot, :, :end], cache.v[slot, :, :end]
        before = torch.arange(max(0, start - cache.window + 1), start) % cache.capacity
        seen = (
            torch.cat((cache.k[slot].index_select(1, before), k_KTh), dim=1),
            torch.cat((cache.v[slot].index_select(1, before), v_KTh), dim=1),
        )
        kept = torch.arange(max(start, end - cache.capacity), end)
        cache.k[slot].index_copy_(1, kept % cache.capacity, k_KTh[:, kept - start])
        cache.v[slot].index_copy_(1, kept % cache.capacity, v_KTh[:, kept - start])
        return seen
