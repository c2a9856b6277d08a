from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fulmen_safety.deadline import MOST_ABANDONED, Deadline, Late


def test_results_and_errors_come_through() -> None:
    limited: Deadline[int] = Deadline(int)
    assert limited.call(5, "12") == 12
    with pytest.raises(ValueError, match="invalid literal"):
        limited.call(5, "x")
    assert limited.call(5, "13") == 13


def test_a_late_call_is_given_up_and_the_next_one_gets_its_own_result() -> None:
    gate = threading.Event()

    def answer(wait: bool) -> str:
        return "late" if wait and gate.wait(30) else "prompt"

    limited = Deadline(answer)
    with pytest.raises(Late, match="20 ms"):
        limited.call(0.02, True)
    assert limited.call(5, False) == "prompt"
    gate.set()
    assert limited.call(5, False) == "prompt"


def test_after_too_many_late_calls_the_circuit_is_open_until_they_end() -> None:
    gate = threading.Event()
    limited: Deadline[bool] = Deadline(lambda: gate.wait(30))
    for _ in range(MOST_ABANDONED):
        with pytest.raises(Late, match="no result"):
            limited.call(0.01)
    with pytest.raises(Late, match="have not come back"):
        limited.call(5)
    gate.set()
    for worker in list(limited._abandoned):
        worker.thread.join(10)
    assert limited.call(5) is True


def test_callers_in_many_threads_each_get_their_own_result() -> None:
    limited: Deadline[int] = Deadline(lambda number: number * number)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: limited.call(20, number), range(200))) == [n * n for n in range(200)]


def test_threads_end_with_their_owner() -> None:
    limited: Deadline[int] = Deadline(int)
    limited.call(5, "1")
    worker = limited._idle[0]
    del limited
    worker.thread.join(10)
    assert not worker.thread.is_alive()
