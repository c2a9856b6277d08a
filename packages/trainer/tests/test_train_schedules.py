"""The three-stage schedule keeps what the report and the specification say of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_trainer.schedules import STAGE_SHARES, constant, cosine, stage_ends, stage_of, three_stage

totals = st.integers(100, 5000)


def test_the_fast_decay_stage_is_the_last_eighth_of_all_steps() -> None:
    assert STAGE_SHARES[-1] == 0.125
    assert stage_ends(1000) == (550, 875, 1000)


def test_warm_up_rises_linearly_to_the_peak() -> None:
    rates = [three_stage(step, 1000, warmup=100) for step in range(100)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(100)])


@settings(max_examples=50, deadline=None)
@given(totals, st.floats(0.2, 0.7))
def test_the_first_stage_falls_from_the_peak_to_half_of_it(total: int, share: float) -> None:
    shares = (share, 0.875 - share, 0.125)
    first = stage_ends(total, shares)[0]
    rates = [three_stage(step, total, warmup=5, shares=shares) for step in range(5, first)]
    assert max(rates) <= 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(totals)
def test_the_second_stage_holds_half_the_peak(total: int) -> None:
    first, second, _ = stage_ends(total)
    assert {three_stage(step, total) for step in range(first, second)} == {0.5}


@settings(max_examples=50, deadline=None)
@given(totals)
def test_the_third_stage_falls_at_every_step_and_ends_at_a_twentieth_of_the_peak_or_less(total: int) -> None:
    _, second, _ = stage_ends(total)
    rates = [0.5, *(three_stage(step, total) for step in range(second, total))]
    assert all(after < before for before, after in itertools.pairwise(rates))
    assert rates[-1] <= 0.05


def test_every_step_lies_in_one_stage() -> None:
    ends = stage_ends(80, (0.5, 0.25, 0.25))
    assert [stage_of(step, ends) for step in range(80)] == [0] * 40 + [1] * 20 + [2] * 20


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (1.5, -0.25, -0.25)])
def test_shares_that_are_no_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        stage_ends(100, shares)


def test_cosine_ends_at_its_floor_and_constant_stays_at_the_peak() -> None:
    assert cosine(9, 10, floor=0.1) == pytest.approx(0.1)
    assert cosine(2, 10, warmup=3) == 1.0
    assert [constant(step, 10, warmup=2) for step in (0, 1, 9)] == [0.5, 1.0, 1.0]
