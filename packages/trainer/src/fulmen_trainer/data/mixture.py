"""Which rows of which source make up a batch: a pure function of (seed, step), so there is no state to lose.

Rows are dealt from a fixed cycle of `CYCLE` slots in which every source has its share, spread evenly (Bresenham's
line). How many rows a source has given before any row is arithmetic, not memory; so are the counters of sampled tokens.

Shapes: B rows, T sequence length, T1 = T + 1, S sources.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_trainer.data.packing import DocumentStream, PackedBatch
from fulmen_trainer.data.shards import ShardSet

#: Slots per cycle: a source's share is a multiple of 1/1024, at least one slot.
CYCLE = 1024


class MixtureSampler:
    """Batches of packed documents from several sources.

    Args:
        shards: the sources by name, all made with one tokenizer.
        weights: share of rows (hence of tokens) of each source; they need not sum to 1; a source with weight 0 is not
            used.
        sequence_length: T; a row has T+1 tokens.
        seed: of the shuffling of documents.
        first_rows: rows that each source gave before, for a later stage to go on where the last one stopped; pass the
            last stage's `rows_drawn`.

    Raises:
        UserError: an unknown source, a bad weight or length, or shards of different tokenizers.
    """

    def __init__(
        self,
        shards: Mapping[str, ShardSet],
        weights: Mapping[str, float],
        sequence_length: int,
        seed: int,
        *,
        first_rows: Mapping[str, int] | None = None,
    ) -> None:
        check_mixture(shards, weights)
        if sequence_length < 1:
            raise UserError(f"sequence length {sequence_length} is not positive", where="the mixture")
        self.sequence_length = sequence_length
        self.names = tuple(sorted(name for name, weight in weights.items() if weight > 0))
        self._streams = [DocumentStream(name, shards[name], seed) for name in self.names]
        self._slots = deal_slots([weights[name] for name in self.names])
        one_hot_CS = self._slots[:, None] == np.arange(len(self.names))
        self._before_CS = np.vstack([np.zeros((1, len(self.names)), np.int64), np.cumsum(one_hot_CS, axis=0)])
        self._first_rows = dict(first_rows or {})
        self._first_S = np.array([self._first_rows.get(name, 0) for name in self.names], dtype=np.int64)

    def batch(self, step: int, batch_size: int) -> PackedBatch:
        """The batch of a step, counted from 0, when every step has `batch_size` rows."""
        return self.rows(step * batch_size, batch_size)

    def rows(self, first: int, count: int) -> PackedBatch:
        """Rows ``first`` to ``first + count - 1`` of the mixture: what `batch` needs when batch sizes vary."""
        row_B = np.arange(first, first + count, dtype=np.int64)
        source_B = self._slots[row_B % CYCLE]
        number_B = self._row_numbers(row_B, source_B)
        shape = (count, self.sequence_length + 1)
        tokens_BT1, segments_BT1, positions_BT1 = (np.empty(shape, dtype=np.int64) for _ in range(3))
        source_tokens: dict[str, int] = {}
        for source, stream in enumerate(self._streams):
            here = source_B == source
            source_tokens[stream.name] = int(here.sum()) * self.sequence_length
            if here.any():
                part = stream.rows(number_B[here], self.sequence_length)
                tokens_BT1[here], segments_BT1[here] = part.tokens_BT1, part.segments_BT1
                positions_BT1[here] = part.positions_BT1
        return PackedBatch(tokens_BT1, segments_BT1, positions_BT1, source_tokens)

    def rows_drawn(self, rows: int) -> dict[str, int]:
        """Rows that each source has given, `first_rows` included, once the mixture has given `rows`."""
        drawn_S = self._first_S + rows // CYCLE * self._before_CS[-1] + self._before_CS[rows % CYCLE]
        return {**self._first_rows, **dict(zip(self.names, drawn_S.tolist(), strict=True))}

    def sampled_tokens(self, rows: int) -> dict[str, int]:
        """Tokens that each source of this mixture has given once it has given `rows`."""
        drawn = self.rows_drawn(rows)
        return {name: (drawn[name] - self._first_rows.get(name, 0)) * self.sequence_length for name in self.names}

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each source has been read through, `first_rows` included, once the mixture has given `rows`."""
        drawn = self.rows_drawn(rows)
        return {
            stream.name: drawn[stream.name] * self.sequence_length / stream.shards.tokens for stream in self._streams
        }

    def _row_numbers(self, row_B: NDArray[np.int64], source_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each row's number within its own source."""
        numbers: NDArray[np.int64] = (
            self._first_S[source_B]
            + row_B // CYCLE * self._before_CS[-1][source_B]
            + self._before_CS[row_B % CYCLE, source_B]
        )
        return numbers


def deal_slots(weights: list[float]) -> NDArray[np.int64]:
    """A cycle of `CYCLE` slots, each the index of a source: shares by largest remainder, at least 1, evenly spread."""
    shares_S = np.array(weights, dtype=np.float64)
    shares_S = shares_S / shares_S.sum() * CYCLE
    counts_S = np.maximum(np.floor(shares_S), 1).astype(np.int64)
    while counts_S.sum() != CYCLE:
        step = 1 if counts_S.sum() < CYCLE else -1
        # The source that is furthest from its share, on the side that the sum must move to; never below one slot.
        distance_S = np.where(counts_S + step >= 1, step * (shares_S - counts_S), -np.inf)
        counts_S[int(np.argmax(distance_S))] += step
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts_S])
    owner = np.repeat(np.arange(len(weights), dtype=np.int64), counts_S)
    return owner[np.argsort(due, kind="stable")]


def check_mixture(shards: Mapping[str, ShardSet], weights: Mapping[str, float]) -> None:
    """Refuse a mixture that cannot be drawn.

    Raises:
        UserError: no positive weight, a weight that is negative or not finite, more than 1,024 sources, a name without
            shards, or shards of different tokenizers.
    """
    for name, weight in weights.items():
        if name not in shards:
            raise UserError(
                f"the mixture names {name!r}, which has no shards", remedy=f"use one of {', '.join(sorted(shards))}"
            )
        if not (weight >= 0 and np.isfinite(weight)):
            raise UserError(f"weight {weight} of {name!r} is not a finite number from 0 up", where="the mixture")
    used = [name for name, weight in weights.items() if weight > 0]
    if not 1 <= len(used) <= CYCLE:
        raise UserError(f"the mixture has {len(used)} sources of positive weight", remedy=f"give between 1 and {CYCLE}")
    if len({shards[name].index.tokenizer for name in used}) > 1:
        raise UserError(
            "the sources were packed with different tokenizers", where="the mixture", remedy="pack them with one"
        )
