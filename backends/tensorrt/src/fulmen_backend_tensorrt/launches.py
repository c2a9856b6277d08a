"""Which runs of the two graphs make up a step. Torch-free, and the same whatever executes them.

Decoding runs a block of adjoining rows, one token each; rows in between that are idle compute a token that nobody
wants and write it behind their sequence, where the next one goes. A prompt runs alone, in chunks that end where a ring
begins again.

Legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_tensorrt.artefact import Phase
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_core.runner import SequenceStep


class Launch(NamedTuple):
    """One run of a graph.

    Attributes:
        first: row of the first sequence.
        ids_BT, positions_BT: int64.
        results: for those of the B rows whose logits are wanted, the row and the place in the step.
    """

    phase: Phase
    first: int
    ids_BT: NDArray[np.int64]
    positions_BT: NDArray[np.int64]
    results: tuple[tuple[int, int], ...]


def plan(
    batch: Sequence[SequenceStep], lengths: Sequence[int], capacities: Capacities, rows: int, chunk: int
) -> Iterator[Launch]:
    """Divide a step.

    Args:
        batch: one step, in which a slot occurs once.
        lengths: tokens that each slot holds; for those in `batch` the tokens before the step.
        capacities: of the caches.
        rows: that a decoding run may have.
        chunk: tokens that a prefill run may have.
    """
    yield from _decode(batch, lengths, rows)
    for place, step in enumerate(batch):
        if len(step.token_ids) > 1:
            yield from _prefill(place, step, capacities, chunk)


def _decode(batch: Sequence[SequenceStep], lengths: Sequence[int], rows: int) -> Iterator[Launch]:
    place = {step.slot: index for index, step in enumerate(batch) if len(step.token_ids) == 1}
    waiting = sorted(place)
    while waiting:
        block = [slot for slot in waiting if slot < waiting[0] + rows]
        waiting = waiting[len(block) :]
        first, count = block[0], block[-1] - block[0] + 1
        ids_B, positions_B = np.zeros(count, np.int64), np.array(lengths[first : first + count], np.int64)
        for slot in block:
            ids_B[slot - first] = batch[place[slot]].token_ids[0]
            positions_B[slot - first] = batch[place[slot]].start
        results = tuple((slot - first, place[slot]) for slot in block)
        yield Launch("decode", first, ids_B[:, None], positions_B[:, None], results)


def _prefill(place: int, step: SequenceStep, capacities: Capacities, chunk: int) -> Iterator[Launch]:
    done, count = 0, len(step.token_ids)
    while done < count:
        position = step.start + done
        size = min(chunk, count - done)
        if capacities.window is not None:
            size = min(size, capacities.window - position % capacities.window)
        ids_1T = np.array(step.token_ids[done : done + size], np.int64)[None]
        positions_1T = np.arange(position, position + size, dtype=np.int64)[None]
        done += size
        yield Launch("prefill", step.slot, ids_1T, positions_1T, ((0, place),) if done == count else ())
