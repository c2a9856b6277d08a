"""The one declarative object that the model, the training step, the KV manager and every exporter are derived from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fulmen_core.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer.

    Attributes:
        index: position in the stack, from 0.
        window: how many tokens a query sees, itself included (keys ``i-window < j <= i``); None is full attention.
        kv_source: the layer whose K and V this layer reads: itself, or an earlier full layer.
        cache: number of the KV cache it reads and, if it owns its K and V, writes; caches are numbered in layer order.
        ffn: the kind of its feed-forward network.
    """

    index: int
    window: int | None
    kv_source: int
    cache: int
    ffn: Literal["dense", "moe"]

    @property
    def owns_kv(self) -> bool:
        """Whether the layer projects its own K and V."""
        return self.kv_source == self.index


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """All layers of a model, in order."""

    layers: tuple[LayerSpec, ...]

    @classmethod
    def of(cls, config: ModelConfig) -> LayerPlan:
        """Derive the plan: the pattern over the depth, `kv_share` consecutive full layers reading the first one's K, V.

        Consecutive means consecutive *among the full layers* (report 2.3): with "SSSF" and `kv_share` 2, layer 7 reads
        layer 3's K and V, layer 15 reads layer 11's.
        """
        layers: list[LayerSpec] = []
        caches = 0
        full_seen = 0
        owner: LayerSpec | None = None
        for index in range(config.num_hidden_layers):
            full = config.layer_pattern[index % len(config.layer_pattern)] == "F"
            borrows = full and full_seen % config.kv_share != 0
            full_seen += full
            dense = config.num_experts == 0 or index < config.num_dense_layers
            if borrows and owner is not None:
                source, cache = owner.index, owner.cache
            else:
                source, cache = index, caches
                caches += 1
            layer = LayerSpec(
                index=index,
                window=None if full else config.sliding_window,
                kv_source=source,
                cache=cache,
                ffn="dense" if dense else "moe",
            )
            if full and layer.owns_kv:
                owner = layer
            layers.append(layer)
        return cls(tuple(layers))

    def __iter__(self) -> Iterator[LayerSpec]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def cache_owners(self) -> tuple[LayerSpec, ...]:
        """The layers that own K and V, one a cache, in cache order."""
        return tuple(layer for layer in self.layers if layer.owns_kv)
