"""How many tokens the static caches hold. Torch-free."""

from __future__ import annotations

from typing import NamedTuple

from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan


class Capacities(NamedTuple):
    """Tokens that one cache has room for.

    Attributes:
        full: of a cache of the whole context: one more than that, so that an idle row has where to write.
        window: of a window cache, a ring: the window and a whole chunk, so that writing a chunk evicts nothing that its
            first token needs. None: no layer has a window.
    """

    full: int
    window: int | None

    @classmethod
    def of(cls, config: ModelConfig, context: int, chunk: int) -> Capacities:
        """Capacities for sequences of `context` tokens that are computed in chunks of at most `chunk`."""
        windows = [layer.window for layer in LayerPlan.of(config) if layer.window is not None]
        return cls(context + 1, min(max(windows) + chunk, context + 1) if windows else None)

    def tokens(self, window: int | None) -> int:
        """The capacity of a cache with this window."""
        return self.full if window is None or self.window is None else self.window
