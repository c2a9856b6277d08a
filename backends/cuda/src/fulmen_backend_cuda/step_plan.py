"""A step as index arrays: what each row reads and writes, worked out on the host and brought to the device in one copy.

Rows are tokens: first those of sequences with one token, then those of chunks. Positions lie in caches as
`fulmen_backend_cuda.paged_cache` says.

Legend: S sequences, N rows, B sequences with one token, C chunks, R rows whose results are wanted, n blocks of a table,
W rows that are written to a cache, O earlier keys of all chunks, M rows of all chunks, P places of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulmen_backend_cuda.paged_attention import Chunks
from fulmen_core.model.kv import CacheSpec
from fulmen_core.paged_steps import ring_tokens
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep

_Ints = NDArray[np.int64]


class Reach(NamedTuple):
    """What a step does in all caches of one window, or in all full ones; arrays of NumPy, or tensors on the device.

    Attributes:
        places_W: int64, where new keys and values go.
        rows_W: int64, of which rows; all of them, in order, if there are N.
        old_O: int64, the places of the keys that chunks see and that were there before.
        old_at_O, new_at_M: int64, where those and the chunks' own lie in the row of all chunks' keys.
        table_Bn, start_B, end_B: int32, see `fulmen_backend_cuda.paged_attention.decode_by_torch`.
        keys: int32 [C+1], where each chunk's keys begin in the row of all.
    """

    places_W: Any
    rows_W: Any
    old_O: Any
    old_at_O: Any
    new_at_M: Any
    table_Bn: Any
    start_B: Any
    end_B: Any
    keys: Any


_WIDE = 5  # the first fields of a `Reach` are int64


class StepPlan(NamedTuple):
    """A whole step.

    Attributes:
        tokens_N, positions_N: int64.
        rows_R: int64, the rows whose results are wanted, in the batch's order.
        queries: int32 [C+1], where each chunk's rows begin among those of chunks.
        reaches: by window, None for full caches.
        decoded: how many rows have one token: B.
    """

    tokens_N: Any
    positions_N: Any
    rows_R: Any
    queries: Any
    reaches: Mapping[int | None, Reach]
    decoded: int

    def arrays(self) -> tuple[list[Any], list[Any]]:
        """All int64 arrays, and all int32 ones, in a fixed order."""
        wide = [self.tokens_N, self.positions_N, self.rows_R]
        narrow = [self.queries]
        for reach in self.reaches.values():
            wide += reach[:_WIDE]
            narrow += reach[_WIDE:]
        return wide, narrow

    def with_arrays(self, wide: Sequence[Any], narrow: Sequence[Any]) -> StepPlan:
        """The same plan with other arrays, in the order of `arrays`."""
        tokens, positions, rows, *rest = wide
        queries, *others = narrow
        each = len(Reach._fields) - _WIDE
        reaches = {
            window: Reach(*rest[i * _WIDE : (i + 1) * _WIDE], *others[i * each : (i + 1) * each])
            for i, window in enumerate(self.reaches)
        }
        return StepPlan(tokens, positions, rows, queries, reaches, self.decoded)


class PlacedPlan(NamedTuple):
    """A plan whose arrays are on the device, and where chunks lie: by window, as `reaches`."""

    plan: StepPlan
    chunks: Mapping[int | None, Chunks]


class StepPlanner:
    """Makes plans for one runner.

    Args:
        cache: of the model.
        layout: of the runner; a page is a block.
        limits: of the runner.
    """

    def __init__(self, cache: CacheSpec, layout: CacheLayout, limits: EngineLimits) -> None:
        self._block, self._layout, self._limits = layout.page_tokens, layout, limits
        self._rings = {
            group.window: 0 if group.window is None else ring_tokens(group.window, limits, layout.page_tokens)
            for group in cache.groups
        }

    def plan(self, batch: Sequence[SequenceStep], pages_S: Sequence[Sequence[int]]) -> StepPlan:
        """The plan of a batch, any mix of single tokens and chunks."""
        order = sorted(range(len(batch)), key=lambda i: len(batch[i].token_ids) > 1)
        steps = [batch[i] for i in order]
        decoded = sum(len(step.token_ids) == 1 for step in steps)
        pages = [pages_S[i] for i in order]
        counts_S = np.array([len(step.token_ids) for step in steps])
        ends = dict(zip(order, counts_S.cumsum().tolist(), strict=True))
        rows = [row for i, step in enumerate(batch) for row in range(ends[i] - step.wanted, ends[i])]
        return StepPlan(
            tokens_N=np.array([token for step in steps for token in step.token_ids], np.int64),
            positions_N=np.concatenate([_positions(step) for step in steps]),
            rows_R=np.array(rows, np.int64),
            queries=_ends(counts_S[decoded:]),
            reaches={
                window: self._reach(window, ring, steps, pages, decoded, None) for window, ring in self._rings.items()
            },
            decoded=decoded,
        )

    def padded(self, batch: Sequence[SequenceStep], pages_S: Sequence[Sequence[int]], size: int) -> StepPlan:
        """The plan of a batch of single tokens, filled up to `size` sequences, with tables of a fixed width."""
        filler = SequenceStep(self._layout.slots, 0, [0])
        steps = [*batch, *[filler] * (size - len(batch))]
        pages = [*pages_S, *[[self._layout.pages]] * (size - len(batch))]
        return StepPlan(
            tokens_N=np.array([step.token_ids[0] for step in steps], np.int64),
            positions_N=np.array([step.start for step in steps], np.int64),
            rows_R=np.arange(size, dtype=np.int64),
            queries=_ends(np.zeros(0, np.int64)),
            reaches={
                window: self._reach(window, ring, steps, pages, size, self._widest(window))
                for window, ring in self._rings.items()
            },
            decoded=size,
        )

    def _widest(self, window: int | None) -> int:
        """Blocks that a sequence's table has at most."""
        whole = self._layout.pages_for(self._limits.max_context)
        return whole if window is None else min(whole, -(-(window - 1) // self._block) + 1)

    def _reach(
        self,
        window: int | None,
        ring: int,
        steps: Sequence[SequenceStep],
        pages: Sequence[Sequence[int]],
        decoded: int,
        width: int | None,
    ) -> Reach:
        singles = list(zip(steps[:decoded], pages, strict=False))
        tables = [self._table(window, ring, step, own) for step, own in singles]
        width = width or max((len(blocks) for blocks, _, _ in tables), default=1)
        table_Bn = np.zeros((decoded, width), np.int32)
        for row_n, (blocks, _, _) in zip(table_Bn, tables, strict=True):
            row_n[: len(blocks)] = blocks
        places = [np.array([self._place(ring, step, own) for step, own in singles], np.int64)]
        rows = [np.arange(decoded)]
        old: list[_Ints] = []
        old_at: list[_Ints] = []
        new_at: list[_Ints] = []
        counts: list[int] = []
        row, key = decoded, 0
        for step, own in zip(steps[decoded:], pages[decoded:], strict=True):
            positions = _positions(step)
            count = len(positions)
            kept = min(count, ring) if ring else count  # a ring keeps its last positions
            places.append(self._places(ring, step, own, positions[count - kept :]))
            rows.append(np.arange(row + count - kept, row + count))
            row += count
            before = np.arange(_first(window, step.start), step.start)
            old.append(self._places(ring, step, own, before))
            old_at.append(np.arange(key, key + len(before)))
            new_at.append(np.arange(key + len(before), key + len(before) + count))
            counts.append(len(before) + count)
            key += counts[-1]
        return Reach(
            places_W=np.concatenate(places),
            rows_W=np.concatenate(rows),
            old_O=_joined(old),
            old_at_O=_joined(old_at),
            new_at_M=_joined(new_at),
            table_Bn=table_Bn,
            start_B=np.array([start for _, start, _ in tables], np.int32),
            end_B=np.array([end for _, _, end in tables], np.int32),
            keys=_ends(np.array(counts, np.int64)),
        )

    def _table(
        self, window: int | None, ring: int, step: SequenceStep, pages: Sequence[int]
    ) -> tuple[Sequence[int] | _Ints, int, int]:
        """A single token's blocks; the first key that it sees, and their end, from the first block's begin on."""
        first = _first(window, step.start)
        begin, last = first // self._block, step.start // self._block
        if not ring:
            return pages[: last + 1], first, step.start + 1
        blocks = ring // self._block
        table = step.slot * blocks + np.arange(begin, last + 1) % blocks
        return table, first - begin * self._block, step.start + 1 - begin * self._block

    def _place(self, ring: int, step: SequenceStep, pages: Sequence[int]) -> int:
        """Where a single token goes."""
        if ring:
            return step.slot * ring + step.start % ring
        return pages[step.start // self._block] * self._block + step.start % self._block

    def _places(self, ring: int, step: SequenceStep, pages: Sequence[int], positions: _Ints) -> _Ints:
        if ring:
            return step.slot * ring + positions % ring
        return np.asarray(pages, np.int64)[positions // self._block] * self._block + positions % self._block


def place(plan: StepPlan, device: torch.device) -> PlacedPlan:
    """Bring a plan to the device."""
    wide, narrow = plan.arrays()
    return with_chunks(plan, plan.with_arrays(_placed(wide, device), _placed(narrow, device)))


def with_chunks(host: StepPlan, placed: StepPlan) -> PlacedPlan:
    """A plan on the device with what is known of its chunks on the host."""
    queries = host.queries.tolist()
    chunks = {
        window: Chunks(placed.queries, placed.reaches[window].keys, queries, reach.keys.tolist())
        for window, reach in host.reaches.items()
    }
    return PlacedPlan(placed, chunks)


def flat_on_host(arrays: Sequence[NDArray[Any]], *, pinned: bool) -> Tensor:
    """All elements of arrays of one dtype, one after the other, in memory that a GPU reads by itself if `pinned`."""
    joined = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
    return joined.pin_memory() if pinned else joined


def views(flat: Tensor, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
    """The parts of a flat tensor, in the shapes of `arrays`."""
    sizes = [array.size for array in arrays]
    return [part.view(array.shape) for part, array in zip(torch.split(flat, sizes), arrays, strict=True)]


def _placed(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    flat = flat_on_host(arrays, pinned=device.type == "cuda")
    return views(flat.to(device, non_blocking=True), arrays)


def _first(window: int | None, start: int) -> int:
    """The first key that a token at `start` sees."""
    return 0 if window is None else max(0, start - window + 1)


def _positions(step: SequenceStep) -> _Ints:
    return np.arange(step.start, step.start + len(step.token_ids), dtype=np.int64)


def _ends(counts: _Ints) -> NDArray[np.int32]:
    return np.concatenate(([0], counts.cumsum())).astype(np.int32)


def _joined(parts: Sequence[_Ints]) -> _Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
