"""Claims about bounded admission: all or nothing, exact counts, a useful time to come back."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.admission import Admission, AdmissionLimits, EngineFull

ENGINE = EngineLimits(max_sequences=2, max_context=100, max_step_tokens=10)


@given(
    calls=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=3), max_size=12),
    starts=st.integers(0, 4),
)
def test_counts_are_exact_and_a_refusal_admits_nothing(calls, starts):
    admission = Admission(AdmissionLimits(max_waiting=4, max_queued_tokens=200), ENGINE)
    admitted = {}
    for number, tokens in enumerate(calls):
        requests = [(f"{number}-{index}", count) for index, count in enumerate(tokens)]
        queued = sum(admitted.values())
        if len(admitted) + len(requests) > 6 or (queued and queued + sum(tokens) > 200):
            with pytest.raises(EngineFull):
                admission.enter(requests)
        else:
            admission.enter(requests)
            admitted.update(requests)
        assert (admission.live, admission.queued_tokens) == (len(admitted), sum(admitted.values()))
    for name in list(admitted)[:starts]:
        admission.got_slot(name)
        admission.got_slot(name)
    for name in admitted:
        admission.ended(name, 0.5)
    assert (admission.live, admission.queued_tokens, admission.queued_requests) == (0, 0, 0)


def test_slow_answers_and_a_long_queue_say_come_back_later():
    admission = Admission(AdmissionLimits(max_waiting=8, max_queued_tokens=1000), ENGINE)
    for number in range(200):
        admission.enter([(f"old{number}", 1)])
        admission.ended(f"old{number}", 10.0)
    admission.enter([(f"r{number}", 1) for number in range(10)])
    with pytest.raises(EngineFull) as full:
        admission.enter([("late", 1)])
    assert 30 <= full.value.retry_after <= 60  # eleven requests at two a round of ten seconds


def test_limits_under_which_a_prompt_could_never_enter_are_refused():
    with pytest.raises(UserError, match="max_queued_tokens 50 is less than the context of 100"):
        Admission(AdmissionLimits(max_queued_tokens=50), ENGINE)
    with pytest.raises(UserError, match="max_waiting -1"):
        Admission(AdmissionLimits(max_waiting=-1), ENGINE)
