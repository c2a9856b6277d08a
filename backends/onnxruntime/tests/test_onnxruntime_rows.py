"""Slots find each other's side with few swaps, and no content is lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_onnxruntime.kv_buffers import KVBuffers
from fulmen_backend_onnxruntime.rows import Rows
from fulmen_core.runner import EngineLimits
from fulmen_testing.models import DEEP as LIGHTNING


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.lists(st.sets(st.integers(0, 11), min_size=1), max_size=12))
def test_batches_adjoin_and_contents_follow_their_slots(count: int, batches: list[set[int]]) -> None:
    rows = Rows(count)
    contents = list(range(count))  # what lies in each row: at first slot i in row i
    for batch in batches:
        wanted = {slot % count for slot in batch}
        block = rows.adjoin(wanted)
        assert len(block.swaps) <= len(wanted)
        for one, other in block.swaps:
            contents[one], contents[other] = contents[other], contents[one]
        assert set(block.slots) == wanted
        assert contents[block.first : block.first + len(wanted)] == list(block.slots)
        assert contents == list(rows.slots)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 9), min_size=1))
def test_the_same_batch_again_needs_no_swap(batch: set[int]) -> None:
    rows = Rows(10)
    rows.adjoin(batch)
    assert rows.adjoin(batch).swaps == ()


def test_one_end_among_many_costs_one_swap() -> None:
    rows = Rows(16)
    rows.adjoin(range(12))
    assert len(rows.adjoin(set(range(12)) - {5}).swaps) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(0, 0), (0, 7), (7, 0), (3, 30), (30, 30), (9, 2)]))
def test_swapping_rows_exchanges_all_that_their_sequences_fill(seed: int, lengths: tuple[int, int]) -> None:
    buffers = KVBuffers(LIGHTNING, EngineLimits(max_sequences=3, max_context=30))
    random = np.random.default_rng(seed)
    for pair in buffers.arrays:
        for array in pair:
            array[:] = random.normal(size=array.shape)
    before = [[array.copy() for array in pair] for pair in buffers.arrays]
    buffers.swap((2, 0), lengths)
    for pair, olds in zip(buffers.arrays, before, strict=True):
        for array, old in zip(pair, olds, strict=True):
            np.testing.assert_array_equal(array[0, :, : lengths[0]], old[2, :, : lengths[0]])
            np.testing.assert_array_equal(array[2, :, : lengths[1]], old[0, :, : lengths[1]])
            np.testing.assert_array_equal(array[1], old[1])
