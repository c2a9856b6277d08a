"""Arithmetic of the KV cache, derived from the layer plan alone."""

from __future__ import annotations

from dataclasses import dataclass

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Caches of one kind: all window caches of one window, or all full caches."""

    window: int | None
    caches: tuple[int, ...]

    def tokens(self, context: int) -> int:
        """Tokens that one cache of the group keeps for a sequence of `context` tokens."""
        return context if self.window is None else min(context, self.window)


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a sequence costs: groups of caches and the elements that one token takes in one cache (K and V together)."""

    groups: tuple[CacheGroup, ...]
    elements_per_token: int

    @classmethod
    def of(cls, config: ModelConfig) -> CacheSpec:
        """Group the caches of the config's layer plan by window."""
        by_window: dict[int | None, list[int]] = {}
        for owner in LayerPlan.of(config).cache_owners:
            by_window.setdefault(owner.window, []).append(owner.cache)
        groups = tuple(CacheGroup(window, tuple(caches)) for window, caches in by_window.items())
        return cls(groups, 2 * config.num_key_value_heads * config.head_dim)

    def bytes_per_sequence(self, context: int, element_bytes: int) -> int:
        """Bytes of K and V that a sequence of `context` tokens keeps."""
        tokens = sum(len(group.caches) * group.tokens(context) for group in self.groups)
        return tokens * self.elements_per_token * element_bytes


def kv_reduction(config: ModelConfig, context: int) -> float:
    """Share of KV memory saved at `context` tokens against full attention without sharing, in [0, 1) (report 2.3)."""
    full = config.model_copy(update={"layer_pattern": "F", "kv_share": 1})
    ours = CacheSpec.of(config).bytes_per_sequence(context, 1)
    return 1.0 - ours / CacheSpec.of(full).bytes_per_sequence(context, 1)
