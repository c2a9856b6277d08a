"""Packing loses no token, mixes no samples, and the sample order is a pure function of seed and step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_trainer.packing_samples import Sample, assign_rows, pack
from fulmen_trainer.sample_order import batch_indices

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def random_sample(length: int, rng: np.random.Generator) -> Sample:
    tokens = rng.integers(1, 1000, length + 1)
    trained = rng.random(length + 1) < 0.5
    trained[-1] = True
    return Sample.next_token(tokens.tolist(), trained.tolist())


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(40, 90))
def test_every_sample_gets_one_row_and_no_row_overflows(sizes: list[int], width: int) -> None:
    rows = assign_rows(sizes, width)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= width for row in rows)


@settings(max_examples=50, deadline=None)
@given(lengths)
def test_best_fit_wastes_less_than_half(sizes: list[int]) -> None:
    rows = assign_rows(sizes, 40)
    assert len(rows) <= max(1, 2 * sum(sizes) / 40)


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
def test_packed_rows_hold_each_sample_once_with_its_own_positions_and_targets(
    sizes: list[int], rows: int, seed: int, together: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = [random_sample(size, rng) for size in sizes * together]
    seen: Counter[int] = Counter()
    for packed in pack(samples, 48, rows, together=together):
        assert packed.tokens_BT.shape[0] <= rows
        for index in set(np.unique(packed.segments_BT).tolist()) - {-1}:
            seen[index] += 1
            here = packed.segments_BT == index
            assert packed.tokens_BT[here].tolist() == samples[index].inputs.tolist()
            assert packed.positions_BT[here].tolist() == list(range(len(samples[index])))
            of_sample = packed.sample_N == index
            predictors = packed.tokens_BT.reshape(-1)[packed.scored_N[of_sample]]
            assert predictors.tolist() == samples[index].inputs[samples[index].scored].tolist()
            assert packed.targets_N[of_sample].tolist() == samples[index].targets[samples[index].scored].tolist()
    assert seen == Counter(range(len(samples)))


def test_a_pair_shares_a_row_even_when_it_is_longer_than_the_row_asked_for() -> None:
    rng = np.random.default_rng()
    samples = [random_sample(size, rng) for size in (30, 30, 5, 5, 8, 9)]
    for packed in pack(samples, 32, 1, together=2):
        present = set(np.unique(packed.segments_BT).tolist()) - {-1}
        assert {index ^ 1 for index in present} == present


def test_a_sample_that_does_not_fit_is_refused_by_the_packer() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        assign_rows([5, 9], 8)


def test_what_follows_the_last_trained_token_is_cut() -> None:
    sample = Sample.next_token([1, 2, 3, 4, 5, 6], [False, False, True, True, False, False])
    assert sample.inputs.tolist() == [1, 2, 3]
    assert sample.targets[sample.scored].tolist() == [3, 4]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 10**6))
def test_an_epoch_shows_every_sample_once_whatever_the_batch(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)
    order = np.concatenate([batch_indices(count, batch, step, seed) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    seed = int(np.random.default_rng().integers(2**32))
    assert np.array_equal(batch_indices(97, 16, 41, seed), batch_indices(97, 16, 41, seed))
    assert not np.array_equal(batch_indices(97, 16, 41, seed), batch_indices(97, 16, 41, seed + 1))
