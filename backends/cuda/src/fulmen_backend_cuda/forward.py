"""One forward pass over the rows of a step, with the caches in between.

The tokens of all sequences lie flat in one row: projections, networks and norms see no sequences and no padding.

Legend: N rows, R wanted rows, D model width, H heads, K kv heads, h head width, S keys of all chunks, P places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fulmen_backend_cuda.experts import Mix
from fulmen_backend_cuda.paged_attention import PagedAttention
from fulmen_backend_cuda.paged_cache import Cache, PagedCache
from fulmen_backend_cuda.step_parts import PLAIN, StepParts
from fulmen_backend_cuda.step_plan import PlacedPlan, Reach
from fulmen_core.model.rope import rotary
from fulmen_core.model.transformer import Transformer


class Forward:
    """A model that computes steps.

    Args:
        model: on the device.
        mixes: of its blocks: see `fulmen_backend_cuda.experts.make_mixes`.
        cache: its caches.
        attention: the forms of attention.
        positions: that it may be asked for.
        parts: what it computes with around attention. A pass with adapters takes the plain ones.
    """

    def __init__(
        self,
        model: Transformer,
        mixes: Sequence[Mix | None],
        cache: PagedCache,
        attention: PagedAttention,
        positions: int,
        parts: StepParts = PLAIN,
    ) -> None:
        self.model, self._mixes, self._cache, self._attention, self.parts = model, mixes, cache, attention, parts
        config, device = model.config, model.embed.weight.device
        # A table, as frequencies are worked out on the host.
        self._cos_T1h, self._sin_T1h = (
            part.to(device)
            for part in rotary(torch.arange(positions), config.head_dim, config.rope_theta, scaling=config.rope_scaling)
        )

    def hidden(self, placed: PlacedPlan, *, adapted: bool = False) -> Tensor:
        """Write what is new to the caches; the final normed hidden states of the wanted rows, [R, D]."""
        model, plan = self.model, placed.plan
        parts = PLAIN if adapted else self.parts
        cos, sin = (part.index_select(0, plan.positions_N) for part in (self._cos_T1h, self._sin_T1h))
        x_ND = model.embedded(plan.tokens_N)
        full_keys: tuple[Tensor, Tensor] | None = None  # of chunks, as the last full layer that owns keys made them
        for layer, mix in zip(model.plan, self._mixes, strict=True):
            block, cache = model.block(layer.index), self._cache[layer.cache]
            reach, chunks = plan.reaches[layer.window], placed.chunks[layer.window]
            normed_ND, q_NHh, owned = parts.before_attention(block, x_ND, cos, sin)
            keys = full_keys
            if owned is not None:
                k_NKh, v_NKh = owned
                # Before they are written: a ring's earlier keys give way to them.
                keys = _chunk_keys(cache, reach, k_NKh, v_NKh) if len(chunks.queries_host) > 1 else None
                _write(cache, reach, k_NKh, v_NKh)
                if layer.window is None:
                    full_keys = keys
            results = []
            if plan.decoded:
                q_BHh = q_NHh.narrow(0, 0, plan.decoded)
                results.append(
                    self._attention.decode(q_BHh, cache.k_PKh, cache.v_PKh, reach.table_Bn, reach.start_B, reach.end_B)
                )
            if keys is not None:
                q_MHh = q_NHh.narrow(0, plan.decoded, len(q_NHh) - plan.decoded)
                results.append(self._attention.chunks(q_MHh, *keys, chunks, layer.window))
            o_NHh = results[0] if len(results) == 1 else torch.cat(results)
            x_ND = parts.after_attention(block, mix, x_ND, normed_ND, o_NHh)
        return parts.last_hidden(model, x_ND, plan.rows_R)

    def logits(self, placed: PlacedPlan, *, adapted: bool = False) -> Tensor:
        """As `hidden`, and then the logits, float32 [R, V]."""
        return self.model.logits(self.hidden(placed, adapted=adapted))


def _chunk_keys(cache: Cache, reach: Reach, k_NKh: Tensor, v_NKh: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values that chunks see, earlier ones and their own, [S, K, h] each."""
    own = len(reach.new_at_M)

    def joined(x_PKh: Tensor, x_NKh: Tensor) -> Tensor:
        x_SKh = x_NKh.new_empty((len(reach.old_O) + own, *x_NKh.shape[1:]))
        x_SKh.index_copy_(0, reach.old_at_O, x_PKh.index_select(0, reach.old_O))
        return x_SKh.index_copy_(0, reach.new_at_M, x_NKh.narrow(0, len(x_NKh) - own, own))

    return joined(cache.k_PKh, k_NKh), joined(cache.v_PKh, v_NKh)


def _write(cache: Cache, reach: Reach, k_NKh: Tensor, v_NKh: Tensor) -> None:
    for x_PKh, x_NKh in ((cache.k_PKh, k_NKh), (cache.v_PKh, v_NKh)):
        all_rows = len(reach.rows_W) == len(x_NKh)
        x_PKh.index_copy_(0, reach.places_W, x_NKh if all_rows else x_NKh.index_select(0, reach.rows_W))
