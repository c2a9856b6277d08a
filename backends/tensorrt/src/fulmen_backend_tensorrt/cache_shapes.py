"""The caches of an artefact: name and shape of each row. Torch-free.

Legend: K kv heads, C capacity, h head width.
"""

from __future__ import annotations

from fulmen_backend_tensorrt.artefact import EngineManifest
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan


def cache_shapes(manifest: EngineManifest, config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """[K, C, h] of "N.key" and "N.value" of each cache: input is "past_key_values." and that, output "present."."""
    capacities = manifest.capacities(config)
    return {
        f"{owner.cache}.{kind}": (config.num_key_value_heads, capacities.tokens(owner.window), config.head_dim)
        for owner in LayerPlan.of(config).cache_owners
        for kind in ("key", "value")
    }
