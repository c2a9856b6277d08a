"""Samples packed into rows instead of padded: each is a segment of its own, with positions from 0 (report section 4.1).

The block causal mask follows from the segments: a token attends to earlier tokens of its own segment only. Which hidden
states matter is data too: the positions that predict an answer token (fine-tuning, DPO) or the last one (reward model).

Legend: B rows, T positions of a row, N scored positions of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Row widths are rounded up to a multiple of this: kernels are built per shape, so a few widths are cheaper than many.
WIDTH_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model reads and where it is scored. All arrays are ``[n]``.

    Attributes:
        inputs: token ids, int64.
        targets: the token each position should predict, int64; read only where `scored`.
        scored: bool, the positions whose hidden state the objective uses.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    scored: NDArray[np.bool_]

    @classmethod
    def next_token(cls, token_ids: Sequence[int], trained: Sequence[bool]) -> Sample:
        """Score the prediction of each trained token. What follows the last trained token is cut: it can teach nothing.

        Args:
            token_ids: the whole conversation.
            trained: for each token, whether it is a target. The first token never is: nothing predicts it.
        """
        targets = np.asarray(token_ids[1:], np.int64)
        scored = np.asarray(trained[1:], np.bool_)
        end = int(np.flatnonzero(scored)[-1]) + 1 if scored.any() else 0
        return cls(np.asarray(token_ids[:-1], np.int64)[:end], targets[:end], scored[:end])

    @classmethod
    def last_token(cls, token_ids: Sequence[int]) -> Sample:
        """Score the hidden state of the last token, which has read everything."""
        inputs = np.asarray(token_ids, np.int64)
        scored = np.zeros(len(inputs), np.bool_)
        scored[-1] = True
        return cls(inputs, np.zeros_like(inputs), scored)

    def __len__(self) -> int:
        return len(self.inputs)

    def truncated(self, length: int) -> Sample:
        """The first `length` positions."""
        return Sample(self.inputs[:length], self.targets[:length], self.scored[:length])


@dataclass(frozen=True, slots=True)
class PackedRows:
    """A micro-batch of packed samples.

    Attributes:
        tokens_BT: int64; padding is token 0.
        positions_BT: int64, from 0 in each sample and in the padding of a row.
        segments_BT: int64, the sample's number in the batch; -1 is padding, which the router's statistics leave out.
        scored_N: int64, flat indices into B·T of the scored positions.
        targets_N: int64, the token to predict there.
        sample_N: int64, the number in the batch of the sample it belongs to.
    """

    tokens_BT: NDArray[np.int64]
    positions_BT: NDArray[np.int64]
    segments_BT: NDArray[np.int64]
    scored_N: NDArray[np.int64]
    targets_N: NDArray[np.int64]
    sample_N: NDArray[np.int64]


def assign_rows(lengths: Sequence[int], sequence_length: int) -> list[list[int]]:
    """Best-fit decreasing: put each sample, longest first, into the fullest row that still holds it.

    Ties go to the earlier sample and the earlier row, so the result depends on the lengths alone.

    Raises:
        ValueError: a sample is longer than a row; the caller drops or truncates before packing.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > sequence_length:
            raise ValueError(f"a sample of {length} tokens does not fit a row of {sequence_length}")
        best = min((room, row) for row, room in enumerate([*free, sequence_length]) if room >= length)[1]
        if best == len(rows):
            rows.append([])
            free.append(sequence_length)
        rows[best].append(index)
        free[best] -= length
    return rows


def pack(
    samples: Sequence[Sample], sequence_length: int, rows_per_micro_batch: int, *, together: int = 1
) -> list[PackedRows]:
    """Pack a batch into micro-batches of at most `rows_per_micro_batch` rows of at most `sequence_length` tokens.

    Args:
        samples: the batch; their order does not matter to any objective.
        sequence_length: widest row. Groups that are longer (see `together`) widen the rows to the longest of them.
        rows_per_micro_batch: how many rows are computed at once.
        together: this many consecutive samples share a row, so that a loss over a pair is whole within a micro-batch.
    """
    lengths = [sum(map(len, samples[start : start + together])) for start in range(0, len(samples), together)]
    width = max(sequence_length, *lengths) if together > 1 else sequence_length
    rows = [
        [group * together + member for group in row for member in range(together)]
        for row in assign_rows(lengths, width)
    ]
    return [
        _fill(samples, rows[start : start + rows_per_micro_batch], width)
        for start in range(0, len(rows), rows_per_micro_batch)
    ]


def _fill(samples: Sequence[Sample], rows: list[list[int]], sequence_length: int) -> PackedRows:
    used = max(sum(len(samples[index]) for index in row) for row in rows)
    width = min(sequence_length, -(-used // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
    tokens_BT = np.zeros((len(rows), width), np.int64)
    positions_BT = np.zeros((len(rows), width), np.int64)
    segments_BT = np.full((len(rows), width), -1, np.int64)
    scored: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    owners: list[NDArray[np.int64]] = []
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            sample = samples[index]
            end = start + len(sample)
            tokens_BT[row, start:end] = sample.inputs
            positions_BT[row, start:end] = np.arange(len(sample))
            segments_BT[row, start:end] = index
            where = np.flatnonzero(sample.scored)
            scored.append(row * width + start + where)
            targets.append(sample.targets[where])
            owners.append(np.full(len(where), index, np.int64))
            start = end
        positions_BT[row, start:] = np.arange(width - start)
    return PackedRows(
        tokens_BT, positions_BT, segments_BT, np.concatenate(scored), np.concatenate(targets), np.concatenate(owners)
    )
