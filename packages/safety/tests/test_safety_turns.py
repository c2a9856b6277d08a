from __future__ import annotations

import threading

from fulmen_safety.deadline import MOST_ABANDONED, Call, Deadline, Late, in_turn


def test_of_calls_in_turn_the_hung_one_is_late_alone_and_at_its_own_time() -> None:
    gate = threading.Event()
    fast: Deadline[int] = Deadline(int)
    hung: Deadline[bool] = Deadline(lambda: gate.wait(30))
    calls = [Call(fast, 20, ("1",)), Call(hung, 0.02, ()), Call(fast, 20, ("x",)), Call(fast, 20, ("2",))]
    one, late, broken, two = in_turn(calls)
    assert (one.result, two.result) == (1, 2)
    assert isinstance(late.error, Late)
    assert "20 ms" in str(late.error)
    assert isinstance(broken.error, ValueError)
    assert sum(outcome.seconds for outcome in (one, late, broken, two)) < 10  # nobody waited for the 20 s of others
    assert not fast._abandoned
    gate.set()
    for worker in hung._abandoned:
        worker.thread.join(10)
        assert not worker.thread.is_alive()


def test_a_detector_whose_circuit_is_open_is_left_out_of_the_turn() -> None:
    gate = threading.Event()
    hung: Deadline[bool] = Deadline(lambda: gate.wait(30))
    for _ in range(MOST_ABANDONED):
        in_turn([Call(hung, 0.01, ())])
    refused, served = in_turn([Call(hung, 20, ()), Call(Deadline(int), 20, ("3",))])
    assert "have not come back" in str(refused.error)
    assert served.result == 3
    gate.set()
