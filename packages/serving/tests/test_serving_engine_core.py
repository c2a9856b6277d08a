"""Claims about one step of the engine, over a runner that notices every mix-up."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fulmen_core.errors import UserError
from fulmen_core.generation import generate
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.invariants import broken_invariants
from fulmen_serving.engine.page_pool import PagePool
from fulmen_serving.engine.scheduler import check_limits, divide_budget
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.slots import SlotPool

PARAMS = SamplingParams(temperature=1.0, max_tokens=5)


def request(name, prompt=(1, 2, 3), params=PARAMS, seed=0, stop_ids=()):
    return GenerationRequest(name, tuple(prompt), params, (seed, 0), frozenset(stop_ids))


def run_until_idle(core):
    tokens, ends = {}, {}
    while core.has_work:
        for event in core.step().events:
            if event.token is not None:
                tokens.setdefault(event.request_id, []).append(event.token)
            if event.end:
                ends[event.request_id] = event.end
        assert broken_invariants(core) == []
    return tokens, ends


@given(gaps=st.lists(st.integers(1, 100), max_size=12), budget=st.integers(0, 200))
def test_a_budget_is_never_exceeded_nor_left_over_and_decoding_goes_first(gaps, budget):
    counts = divide_budget(gaps, budget)
    assert all(0 <= count <= gap for count, gap in zip(counts, gaps, strict=True))
    assert sum(counts) == min(budget, sum(gaps))
    if any(count and gap > 1 for count, gap in zip(counts, gaps, strict=True)):
        assert all(count == 1 for count, gap in zip(counts, gaps, strict=True) if gap == 1)


@given(gaps=st.lists(st.integers(2, 50), min_size=1, max_size=8), budget=st.integers(1, 60))
def test_prompts_are_finished_in_the_order_of_arrival(gaps, budget):
    counts = divide_budget(gaps, budget)
    first_open = next((i for i, (c, g) in enumerate(zip(counts, gaps, strict=True)) if c < g), len(gaps))
    assert counts[first_open + 1 :] == [0] * len(counts[first_open + 1 :])


def test_limits_under_which_a_sequence_could_starve_are_refused():
    with pytest.raises(UserError, match="step of 3 tokens cannot advance 4 sequences"):
        check_limits(EngineLimits(max_sequences=4, max_context=16, max_step_tokens=3))
    with pytest.raises(UserError, match="max_context 0"):
        check_limits(EngineLimits(max_sequences=1, max_context=0, max_step_tokens=3))
    with pytest.raises(UserError, match="kv_tokens 63 is less than one context of 64 tokens"):
        check_limits(EngineLimits(max_sequences=1, max_context=64, max_step_tokens=8, kv_tokens=63))


def test_a_bound_of_the_caches_is_refused_where_there_are_no_pages_to_bound(prefix_runner):
    limits = EngineLimits(max_sequences=2, max_context=64, max_step_tokens=8, kv_tokens=64)
    with pytest.raises(UserError, match="the backend has no pages"):
        EngineCore(prefix_runner(limits))
    EngineCore(prefix_runner(limits, page_tokens=8))


def test_a_slot_cannot_be_given_back_twice():
    pool = SlotPool(2)
    slot = pool.take()
    pool.give_back(slot)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back(slot)


def test_a_page_is_free_again_when_its_last_user_dropped_it_and_not_before():
    pool = PagePool(2)
    [page] = pool.take(1)
    pool.share([page])
    pool.drop([page])
    assert pool.free == 1
    pool.drop([page])
    assert pool.free == 2
    with pytest.raises(ValueError, match="not taken"):
        pool.drop([page])
    with pytest.raises(ValueError, match="is free and cannot be shared"):
        pool.share([page])
    with pytest.raises(ValueError, match="3 pages are wanted and 2 are free"):
        pool.take(3)


def test_a_long_prompt_goes_in_by_chunks_while_others_decode_every_step(prefix_runner):
    core = EngineCore(prefix_runner(EngineLimits(max_sequences=2, max_context=64, max_step_tokens=8)))
    core.add(request("short", [5], SamplingParams(max_tokens=12)))
    core.step()
    core.add(request("long", range(30)))
    steps_of_short = [[e.request_id for e in core.step().events].count("short") for _ in range(5)]
    assert steps_of_short == [1, 1, 1, 1, 1]  # never waits for the 30 tokens beside it
    assert {state.request.request_id: state.generated for state in core.running}["long"] == 1  # 7+7+7+7+2


def test_a_stop_id_ends_the_answer_and_is_counted(prefix_runner):
    limits = EngineLimits(max_sequences=2, max_context=64, max_step_tokens=8)
    free, _ = run_until_idle(_with(prefix_runner(limits), request("a", params=SamplingParams(max_tokens=8))))
    stop = free["a"][3]
    assert stop not in free["a"][:3]
    tokens, ends = run_until_idle(
        _with(prefix_runner(limits), request("a", params=SamplingParams(max_tokens=8), stop_ids=[stop]))
    )
    assert tokens["a"] == free["a"][:4]
    assert ends == {"a": "stop"}


def test_a_backend_that_fails_ends_the_requests_of_that_step_and_no_other(prefix_runner):
    runner = prefix_runner(EngineLimits(max_sequences=1, max_context=64, max_step_tokens=8))
    runner.fail_on = lambda batch: 39 in batch[0].token_ids
    core = EngineCore(runner)
    for name, prompt in {"before": [1], "poison": [39], "after": [2]}.items():
        core.add(request(name, prompt, SamplingParams(temperature=0, max_tokens=1)))
    _, ends = run_until_idle(core)
    assert ends == {"before": "length", "poison": "error", "after": "length"}
    assert runner.slots == {}


def test_logits_that_are_not_finite_end_their_own_request_only(prefix_runner):
    runner = prefix_runner(EngineLimits(max_sequences=2, max_context=64, max_step_tokens=8))
    sound = runner.logits
    runner.logits = lambda prefix: sound(prefix) * (float("nan") if prefix[0] == 7 else 1.0)
    core = _with(runner, request("sick", [7]), request("well", [8]))
    tokens, ends = run_until_idle(core)
    assert ends["sick"] == "error"
    assert "sick" not in tokens
    reference = prefix_runner(runner.limits)
    assert [tokens["well"]] == generate(reference, [[8]], SamplingParams(max_tokens=PARAMS.max_tokens, seed=0))


def _with(runner, *requests):
    core = EngineCore(runner)
    for asked in requests:
        core.add(asked)
    return core
