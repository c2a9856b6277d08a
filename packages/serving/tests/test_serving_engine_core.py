"""Claims about one step of the engine, over a runner that notices every mix-up."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from fulmen_core.errors import UserError
from fulmen_core.generation import generate
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.invariants import broken_invariants
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


def test_a_slot_cannot_be_given_back_twice():
    pool = SlotPool(2)
    slot = pool.take()
    pool.give_back(slot)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back(slot)


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


def test_random_workloads_keep_every_invariant_and_answer_like_one_request_alone(prefix_runner):
    """Submissions, aborts and steps in any order: outputs equal the one-request reference, nothing leaks."""
    limits = EngineLimits(max_sequences=3, max_context=48, max_step_tokens=7)

    class Workload(RuleBasedStateMachine):
        live = Bundle("live")

        def __init__(self):
            super().__init__()
            self.core = EngineCore(prefix_runner(limits))
            self.requests, self.tokens, self.ends, self.aborted = {}, {}, {}, set()

        @rule(
            target=live,
            prompt=st.lists(st.integers(0, 39), min_size=1, max_size=30),
            max_tokens=st.integers(1, 18),
            temperature=st.sampled_from([0.0, 0.7, 1.5]),
            top_p=st.sampled_from([0.5, 1.0]),
            seed=st.integers(0, 2**40),
            stop_ids=st.frozensets(st.integers(0, 39), max_size=4),
        )
        def submit(self, prompt, max_tokens, temperature, top_p, seed, stop_ids):
            name = f"r{len(self.requests)}"
            params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
            self.requests[name] = request(name, prompt, params, seed, stop_ids)
            self.core.add(self.requests[name])
            return name

        @rule(name=consumes(live))
        def abort(self, name):
            self.core.abort(name)
            self.aborted.add(name)
            assert name not in [s.request.request_id for s in [*self.core.running, *self.core.waiting]]
            self.core.abort(name)  # twice is harmless

        @rule(count=st.integers(1, 6))
        def step(self, count):
            for _ in range(count):
                self.take(self.core.step())

        @invariant()
        def holds(self):
            assert broken_invariants(self.core) == []
            slots = {state.slot for state in self.core.running}
            assert set(self.core.runner.slots) <= slots, "the runner keeps a sequence that nobody owns"

        def take(self, outcome):
            for event in outcome.events:
                self.tokens.setdefault(event.request_id, []).append(event.token)
                if event.end:
                    self.ends[event.request_id] = event.end

        def teardown(self):
            while self.core.has_work:
                self.take(self.core.step())
                self.holds()
            assert len(self.core.slots.free) == limits.max_sequences
            assert set(self.ends) | self.aborted == set(self.requests)
            for name, asked in self.requests.items():
                params = asked.params
                alone = SamplingParams(params.temperature, params.top_p, 0, params.max_tokens, asked.seed[0])
                [expected] = generate(prefix_runner(limits), [asked.prompt_ids], alone, asked.stop_ids)
                got = self.tokens.get(name, [])
                assert got == (expected[: len(got)] if name in self.aborted else expected)

    run_state_machine_as_test(Workload, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


def _with(runner, *requests):
    core = EngineCore(runner)
    for asked in requests:
        core.add(asked)
    return core
