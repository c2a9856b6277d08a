"""Documents to rows of T+1 tokens, by cutting an endless shuffled sequence; every function here is pure.

A source's documents in an order that depends on (seed, source, epoch), epoch after epoch, make one endless sequence.
Row r is its stretch [r·T, r·T + T], T+1 tokens: inputs and targets overlap by one, so in each epoch every token is an
input exactly once, and nothing is padded or dropped.

Shapes: B rows, T sequence length, T1 = T + 1, N documents of one source.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fulmen_trainer.data.shards import ShardSet


@dataclass(frozen=True)
class PackedBatch:
    """Rows of packed documents.

    Attributes:
        tokens_BT1: int64; inputs are ``[:, :-1]``, targets ``[:, 1:]``.
        segments_BT1: int64; which document of its row a token belongs to, from 0; attention must not cross segments.
        positions_BT1: int64; from 0 at each document's first token in the row.
        source_tokens: input tokens drawn from each source.
    """

    tokens_BT1: NDArray[np.int64]
    segments_BT1: NDArray[np.int64]
    positions_BT1: NDArray[np.int64]
    source_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def trained_BT(self) -> NDArray[np.bool_]:
        """Where the target continues its input's document; elsewhere there is nothing to predict."""
        same: NDArray[np.bool_] = self.segments_BT1[:, :-1] == self.segments_BT1[:, 1:]
        return same


def document_order(seed: int, source: str, epoch: int, documents: int) -> NDArray[np.int64]:
    """A permutation of 0..documents-1 that depends on the arguments alone, in every process and numpy version.

    Documents are sorted by SplitMix64 of their number (Steele et al., 2014), keyed by a hash of (seed, source, epoch).
    """
    key = hashlib.sha256(f"{seed}\0{source}\0{epoch}".encode()).digest()[:8]
    z = np.arange(1, documents + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(int.from_bytes(key, "little"))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable").astype(np.int64)


class DocumentStream:
    """One source's endless sequence of tokens, addressed by position.

    Args:
        name: the source's name, part of the shuffling key.
        shards: its documents.
        seed: of the shuffling.
    """

    def __init__(self, name: str, shards: ShardSet, seed: int) -> None:
        self.name = name
        self.shards = shards
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)  # only a cache: an epoch is a function of its number

    def rows(self, row_numbers_B: NDArray[np.int64], sequence_length: int) -> PackedBatch:
        """The rows with these numbers."""
        positions_BT1 = row_numbers_B[:, None] * sequence_length + np.arange(sequence_length + 1)
        epochs_BT1, offsets_BT1 = np.divmod(positions_BT1, self.shards.tokens)
        tokens_BT1 = np.empty_like(positions_BT1)
        ordinals_BT1 = np.empty_like(positions_BT1)  # of the document in the endless sequence
        for epoch in np.unique(epochs_BT1).tolist():
            here = epochs_BT1 == epoch
            order_N, starts_N = self._epoch(epoch)
            offsets = offsets_BT1[here]
            rank = np.searchsorted(starts_N, offsets, side="right") - 1
            tokens_BT1[here] = self.shards.take(self.shards.starts_N[order_N[rank]] + offsets - starts_N[rank])
            ordinals_BT1[here] = rank + epoch * self.shards.documents
        return PackedBatch(tokens_BT1, ordinals_BT1 - ordinals_BT1[:, :1], restarting_positions(ordinals_BT1))

    def _make_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents in this epoch's order, and where each starts in it."""
        order_N = document_order(self._seed, self.name, epoch, self.shards.documents)
        lengths_N = self.shards.lengths_N[order_N]
        return order_N, np.cumsum(lengths_N) - lengths_N


def restarting_positions(segments_BT1: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions that count from 0 at the first token of each segment of each row."""
    index_T1 = np.arange(segments_BT1.shape[1], dtype=np.int64)
    starts_BT1 = np.zeros_like(segments_BT1)
    starts_BT1[:, 1:] = np.where(segments_BT1[:, 1:] != segments_BT1[:, :-1], index_T1[1:], 0)
    return index_T1 - np.maximum.accumulate(starts_BT1, axis=1)
