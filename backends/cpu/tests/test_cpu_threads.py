"""The number of threads is what was asked for, else what pays: and never one more on a machine that others use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

from fulmen_backend_cpu.cores import Cores
from fulmen_backend_cpu.threads import candidates, choose_threads, decide, run_on, time_products

QUIET = Cores((0, 1, 2, 3), 4, None, 0.0)
BUSY = Cores((0, 1, 2, 3), 4, None, 1.8)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "rates", "threads"),
    [
        (QUIET, {1: 100.0, 2: 190.0, 4: 350.0}, 4),
        (QUIET, {1: 100.0, 2: 190.0, 4: 200.0}, 2),  # four threads gain a twentieth over two
        (QUIET, {1: 100.0, 2: 40.0, 4: 30.0}, 1),  # something holds them up that /proc/stat did not show
        (QUIET, {1: 100.0, 2: 90.0, 4: 380.0}, 4),
        (BUSY, {1: 100.0, 2: 190.0, 4: 350.0}, 2),
        (BUSY, {1: 100.0, 2: 130.0, 4: 350.0}, 1),
    ],
)
def test_a_further_thread_must_pay_and_find_a_free_core(cores: Cores, rates: Mapping[int, float], threads: int) -> None:
    assert decide(cores, rates)[0] == threads


def test_the_reason_names_what_decided() -> None:
    assert "others keep 1.8 cores busy" in decide(BUSY, {1: 100.0, 2: 190.0, 4: 350.0})[1]
    assert "4 threads made 3.50 times" in decide(QUIET, {1: 100.0, 4: 350.0})[1]
    one = Cores((0, 1), 2, 1.0, 0.0)
    assert decide(one, {}) == (
        1,
        "the process may use 2 cores, and its control group 1 cores' worth of time",
    )


def test_what_is_tried_goes_up_to_the_usable_cores_and_has_the_free_ones() -> None:
    assert candidates(QUIET) == (1, 2, 4)
    assert candidates(Cores(tuple(range(6)), 6, None, 0.0)) == (1, 2, 4, 6)
    assert candidates(Cores(tuple(range(16)), 16, None, 3.0)) == (1, 2, 4, 8, 13, 16)
    assert candidates(Cores((0,), 1, None, 0.0)) == (1,)


def test_the_number_asked_for_wins() -> None:
    assert choose_threads(3) == (3, "asked for")
    assert run_on(1)["threads"] == 1
    assert torch.get_num_threads() == 1


def test_the_choice_is_set_and_says_what_it_rests_on() -> None:
    chosen = run_on(None)
    assert torch.get_num_threads() == chosen["threads"] <= chosen["cores_physical"]
    assert chosen["reason"]
    if chosen["products_per_s"]:
        assert str(chosen["threads"]) in chosen["products_per_s"]


def test_products_are_counted_for_each_number_of_threads() -> None:
    rates = time_products((1, 2), budget=0.03)
    assert set(rates) == {1, 2}
    assert min(rates.values()) > 0
