"""Random workloads: requests that begin alike, priorities, aborts, little memory. After every step all invariants hold,
and every answer is what the request alone would have got."""

from __future__ import annotations

from itertools import chain

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from fulmen_core.adapters.description import fingerprint_of
from fulmen_core.generation import generate
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.engine.adapter_places import AdapterRef
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.invariants import broken_invariants
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.speculation import DraftModelProposer, NGramProposer

CONTEXT = 96
VOCABULARY = 40
_random = np.random.default_rng(7)
#: What prompts are made of, so that many begin alike, at lengths before, at and after windows and pages.
PIECES = [_random.integers(0, VOCABULARY, n).tolist() for n in (1, 3, 16, 17, 24, 32)]

#: Name -> arguments of the runner, of the limits, and of the core.
ENGINES = {
    "slots alone": ({}, {}, {}),
    "slots that keep prefixes": ({}, {"cached_sequences": 2}, {}),
    "pages": ({"page_tokens": 8}, {"cached_sequences": 3}, {}),
    "pages and windows": ({"page_tokens": 8, "window": 20}, {"cached_sequences": 3}, {}),
    "few pages": ({"page_tokens": 8, "window": 20}, {"cached_sequences": 3, "kv_tokens": 120}, {}),
    "guesses": ({"page_tokens": 8, "window": 20, "depends_on": 1}, {"cached_sequences": 2, "draft_tokens": 4}, {}),
    "adapters": ({"page_tokens": 8, "window": 20}, {"cached_sequences": 3, "adapters": 2}, {}),
    "batch-invariant": (
        {"page_tokens": 8, "window": 20},
        {"cached_sequences": 3, "kv_tokens": 120},
        {"batch_invariant": True},
    ),
}


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, write_adapter):
    """Three adapters, as requests name them."""
    folder = tmp_path_factory.mktemp("adapters")
    return [adapter_ref(write_adapter(folder / name)) for name in ("red", "green", "blue")]


def adapter_ref(directory):
    return AdapterRef(directory.name, directory, fingerprint_of(directory))


@pytest.mark.parametrize("name", ENGINES)
def test_random_workloads_keep_every_invariant_and_answer_like_one_request_alone(prefix_runner, adapters, name):
    of_runner, of_limits, of_core = ENGINES[name]
    limits = EngineLimits(max_sequences=3, max_context=CONTEXT, max_step_tokens=11, **of_limits)

    class Workload(RuleBasedStateMachine):
        live = Bundle("live")

        def __init__(self):
            super().__init__()
            proposer = NGramProposer(longest=2, shortest=1) if limits.draft_tokens else None
            self.runner = prefix_runner(limits, VOCABULARY, **of_runner)
            self.core = EngineCore(self.runner, proposer=proposer, **of_core)
            self.requests, self.tokens, self.ends, self.aborted = {}, {}, {}, set()

        @rule(
            target=live,
            prompt=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(
                lambda pieces: [*chain.from_iterable(pieces)][:80]
            ),
            max_tokens=st.integers(1, 16),
            temperature=st.sampled_from([0.0, 0.7, 1.5]),
            top_p=st.sampled_from([0.5, 1.0]),
            seed=st.integers(0, 2**40),
            stop_ids=st.frozensets(st.integers(0, VOCABULARY - 1), max_size=4),
            priority=st.integers(0, 1),
            salt=st.sampled_from(["", "", "another key"]),
            adapter=st.sampled_from([None, *adapters] if limits.adapters else [None]),
        )
        def submit(self, prompt, max_tokens, temperature, top_p, seed, stop_ids, priority, salt, adapter):
            name = f"r{len(self.requests)}"
            params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
            request = GenerationRequest(
                name, tuple(prompt), params, (seed, 0), stop_ids, priority=priority, salt=salt, adapter=adapter
            )
            self.requests[name] = request
            self.core.add(request)
            return name

        @rule(name=consumes(live), forget=st.booleans())
        def abort(self, name, forget):
            self.core.abort(name, forget=forget)
            self.aborted.add(name)
            assert name not in [s.request.request_id for s in [*self.core.running, *self.core.waiting]]
            if forget:
                assert name not in [unit.request_id for unit in self.core.cache.kept]
            self.core.abort(name)  # twice is harmless

        @rule(count=st.integers(1, 6))
        def step(self, count):
            for _ in range(count):
                self.take(self.core.step())
                self.holds()

        @invariant()
        def holds(self):
            assert broken_invariants(self.core) == []
            owned = {state.slot for state in self.core.running} | {unit.slot for unit in self.core.cache.kept}
            assert set(self.runner.slots) <= owned, "the runner keeps a sequence that nobody owns"

        def take(self, outcome):
            for event in outcome.events:
                assert event.end != "error", event.message
                self.tokens.setdefault(event.request_id, []).append(event.token)
                if event.end:
                    self.ends[event.request_id] = event.end

        def teardown(self):
            steps = 0
            while self.core.has_work:
                self.take(self.core.step())
                self.holds()
                steps += 1
                assert steps < 5_000, "the engine does not come to an end"
            for unit in self.core.cache.kept:
                self.core.cache.forget(unit.request_id)
            assert broken_invariants(self.core) == []
            assert self.runner.slots == {}
            assert set(self.core.adapters.users) == set(self.runner.adapters)
            assert not any(self.core.adapters.users.values())
            assert len(self.core.cache.slots.free) == limits.slots
            assert self.core.cache.pages.free == self.runner.layout.pages
            assert set(self.ends) | self.aborted == set(self.requests)
            for name, asked in self.requests.items():
                params = asked.params
                alone = SamplingParams(params.temperature, params.top_p, 0, params.max_tokens, asked.seed[0])
                reference = prefix_runner(
                    EngineLimits(1, CONTEXT, 99), VOCABULARY, depends_on=of_runner.get("depends_on")
                )
                reference.alone = 0 if asked.adapter is None else reference.added_by(asked.adapter.directory)
                [expected] = generate(reference, [asked.prompt_ids], alone, asked.stop_ids)
                got = self.tokens.get(name, [])
                assert got == (expected[: len(got)] if name in self.aborted else expected)

    run_state_machine_as_test(Workload, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


def run(core, *requests):
    """Run to the end; the answers by request, and the sums of the outcomes."""
    for request in requests:
        core.add(request)
    tokens, reused, guessed, confirmed = {}, 0, 0, 0
    while core.has_work:
        outcome = core.step()
        reused, guessed = reused + outcome.reused_tokens, guessed + outcome.guessed_tokens
        confirmed += outcome.confirmed_tokens
        for event in outcome.events:
            tokens.setdefault(event.request_id, []).append(event.token)
        assert broken_invariants(core) == []
    return tokens, reused, guessed, confirmed


def asked(name, prompt, max_tokens=4, **options):
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    return GenerationRequest(name, tuple(prompt), params, (0, 0), frozenset(), **options)


def engine(
    prefix_runner,
    *,
    window=20,
    cached=3,
    sequences=2,
    draft=0,
    kv_tokens=0,
    adapters=0,
    proposer=None,
    depends_on=None,
    **of_core,
):
    limits = EngineLimits(
        sequences, CONTEXT, 32, cached_sequences=cached, draft_tokens=draft, kv_tokens=kv_tokens, adapters=adapters
    )
    runner = prefix_runner(limits, VOCABULARY, window=window, page_tokens=8, depends_on=depends_on)
    return EngineCore(runner, proposer=proposer, **of_core)


def test_a_second_turn_computes_only_what_is_new(prefix_runner):
    core = engine(prefix_runner)
    prompt = _random.integers(0, VOCABULARY, 50).tolist()
    first, _, _, _ = run(core, asked("first", prompt))
    history = [*prompt, *first["first"]]
    core.runner.chunks.clear()
    _, reused, _, _ = run(core, asked("second", [*history, 1, 2, 3]))
    assert reused == len(history) - 1  # the last token of an answer is never computed
    assert core.runner.chunks[0] == (len(history) - 1, 4)


def test_of_a_long_sequence_only_its_end_can_be_gone_on_from_and_the_next_to_branch_off_is_remembered(prefix_runner):
    core = engine(prefix_runner, window=20)
    shared = _random.integers(0, VOCABULARY, 40).tolist()
    decisions = []
    for index in range(3):
        state = core.add(asked(str(index), [*shared, index, 1, 2]))
        run(core)
        decisions.append((state.reused, state.decisions[0].why))
    assert decisions[0] == (0, "nothing that is kept begins like it")
    assert decisions[1] == (0, "40 tokens are known, but the window that ends there is not kept")
    assert decisions[2] == (40, "40 tokens of 1 are kept")


def test_what_another_is_computing_is_waited_for_and_not_computed_twice(prefix_runner):
    core = engine(prefix_runner, sequences=4)
    shared = _random.integers(0, VOCABULARY, 60).tolist()
    _, reused, _, _ = run(core, *(asked(str(index), [*shared, index]) for index in range(4)))
    assert reused == 3 * 60


def test_prefixes_are_not_shared_between_salts(prefix_runner):
    core = engine(prefix_runner)
    prompt = _random.integers(0, VOCABULARY, 50).tolist()
    run(core, asked("mine", prompt, salt="my key"))
    assert run(core, asked("theirs", prompt, salt="their key"))[1] == 0
    assert run(core, asked("mine again", prompt, salt="my key"))[1] == 0  # one window, and it ends in the answer
    short = engine(prefix_runner, window=None)
    run(short, asked("mine", prompt, salt="my key"))
    assert run(short, asked("mine again", prompt, salt="my key"))[1] == 49


def test_prefixes_are_not_shared_between_adapters(prefix_runner, adapters):
    core = engine(prefix_runner, window=None, adapters=2)
    prompt = _random.integers(0, VOCABULARY, 50).tolist()
    answers = []
    for index, adapter in enumerate([None, *adapters]):
        tokens, reused, _, _ = run(core, asked(f"first {index}", prompt, adapter=adapter))
        assert reused == 0
        answers.append(tuple(*tokens.values()))
        tokens, reused, _, _ = run(core, asked(f"second {index}", prompt, adapter=adapter))
        assert (tuple(*tokens.values()), reused) == (answers[-1], 49)
    assert len(set(answers)) == 4


def test_whoever_finds_all_places_for_adapters_taken_waits_and_is_told(prefix_runner, adapters):
    core = engine(prefix_runner, sequences=3, adapters=1)
    red, green, alone = (
        core.add(asked(name, [1, 2, 3], adapter=adapter))
        for name, adapter in (("red", adapters[0]), ("green", adapters[1]), ("alone", None))
    )
    core.step()
    assert core.running == [red]
    assert green.decisions[-1].why == "all 1 places for adapters are taken"
    assert alone.decisions[-1].why == "green comes before it"
    tokens = run(core)[0]
    assert {name: len(answer) for name, answer in tokens.items()} == {"red": 3, "green": 4, "alone": 4}
    assert [decision.what for decision in green.decisions] == ["queued", "admitted"]


def test_an_adapter_that_cannot_be_loaded_fails_its_request_and_no_other(
    prefix_runner, adapters, write_adapter, tmp_path
):
    gone, replaced = adapter_ref(write_adapter(tmp_path / "gone")), adapter_ref(write_adapter(tmp_path / "replaced"))
    (gone.directory / "adapter_config.json").unlink()
    write_adapter(replaced.directory, rank=3)
    core = engine(prefix_runner, sequences=3, adapters=2)
    for name, adapter in (("gone", gone), ("replaced", replaced), ("red", adapters[0])):
        core.add(asked(name, [1, 2, 3], adapter=adapter))
    events = [event for _ in range(8) for event in core.step().events]
    assert broken_invariants(core) == []
    faults = {event.request_id: event.message for event in events if event.end == "error"}
    assert "holds no adapter" in faults["gone"]
    assert faults["replaced"].endswith("the adapter 'replaced' was replaced while it was loaded: ask again")
    assert sum(event.request_id == "red" for event in events) == 4
    assert len(core.runner.adapters) == 1


def test_what_was_refused_is_not_offered_again(prefix_runner):
    core = engine(prefix_runner, window=None)
    prompt = _random.integers(0, VOCABULARY, 50).tolist()
    run(core, asked("refused", prompt))
    core.abort("refused", forget=True)
    assert run(core, asked("again", prompt))[1] == 0


def test_a_unit_that_gives_up_its_place_leaves_alone_what_it_shares(prefix_runner):
    core = engine(prefix_runner, window=None, cached=1, sequences=1)
    shared = _random.integers(0, VOCABULARY, 40).tolist()
    prompts = {"a": shared, "b": [*shared[:24], 1], "c": [*shared[:20], 2, 3], "d": [*shared[:24], 1, 4]}
    for name, prompt in prompts.items():  # c goes on in the place of a, in the middle of a page that b has, too
        tokens, reused, _, _ = run(core, asked(name, prompt))
        assert reused == {"a": 0, "b": 24, "c": 20, "d": 25}[name]
        reference = prefix_runner(EngineLimits(1, CONTEXT, 99), VOCABULARY)
        assert [tokens[name]] == generate(reference, [prompt], SamplingParams(temperature=0, max_tokens=4))


def test_many_conversations_in_turn_find_their_prefixes_while_their_units_fit(prefix_runner):
    """The round robin under which caches collapse that free windows token by token."""
    conversations = [_random.integers(0, VOCABULARY, 30).tolist() for _ in range(4)]
    for cached, expected in ((4, 4), (1, 0)):
        core = engine(prefix_runner, cached=cached, sequences=1, kv_tokens=5 * CONTEXT)
        for _ in range(3):
            hits = 0
            for index, history in enumerate(conversations):
                tokens, reused, _, _ = run(core, asked("turn", history, max_tokens=2))
                hits += reused > 0
                conversations[index] = [*history, *tokens["turn"], index]
        assert hits == expected


def test_the_cheapest_is_preempted_and_its_answer_does_not_suffer(prefix_runner):
    core = engine(prefix_runner, sequences=2, kv_tokens=CONTEXT, cached=0)
    prompts = [_random.integers(0, VOCABULARY, n).tolist() for n in (55, 39)]
    states = [core.add(asked(str(i), prompt, max_tokens=40)) for i, prompt in enumerate(prompts)]
    tokens, _, _, _ = run(core)
    reference = prefix_runner(EngineLimits(1, CONTEXT, 99), VOCABULARY)
    params = SamplingParams(temperature=0, max_tokens=40)
    assert [tokens["0"], tokens["1"]] == generate(reference, prompts, params)
    assert [decision.what for decision in states[0].decisions] == ["admitted"]
    assert [decision.what for decision in states[1].decisions] == ["admitted", "preempted", "queued", "admitted"]
    assert states[1].decisions[1].why.startswith("0 needs its pages; 39 tokens are computed again")


def test_a_request_of_higher_priority_takes_the_place_of_one_of_lower(prefix_runner):
    core = engine(prefix_runner, sequences=1)
    low = core.add(asked("low", range(30), max_tokens=9, priority=5))
    for _ in range(4):
        core.step()
    assert low.generated
    core.add(asked("high", [1, 2, 3], max_tokens=2, priority=1))
    core.add(asked("equal", [1, 2, 3], max_tokens=2, priority=5))
    ends = [event.request_id for _ in range(40) for event in core.step().events if event.end]
    assert ends == ["high", "low", "equal"]
    assert low.decisions[-1].why.endswith("tokens of low are kept")  # nothing was computed twice


def test_every_request_that_waits_is_told_why(prefix_runner):
    core = engine(prefix_runner, sequences=1)
    states = [core.add(asked(name, [n, 2, 3])) for n, name in enumerate("abc")]
    core.step()
    assert [[(d.what, d.why) for d in state.decisions] for state in states[1:]] == [
        [("queued", "all 1 places are taken")],
        [("queued", "b comes before it")],
    ]
    run(core)
    assert [decision.what for decision in states[2].decisions] == ["queued", "admitted"]


def test_guesses_save_steps_and_change_nothing(prefix_runner):
    prompt = _random.integers(0, VOCABULARY, 10).tolist()
    plain = engine(prefix_runner, depends_on=1)
    expected = run(plain, asked("a", prompt, max_tokens=60))[0]
    guessing = engine(prefix_runner, draft=4, proposer=NGramProposer(longest=2, shortest=1), depends_on=1)
    tokens, _, guessed, confirmed = run(guessing, asked("a", prompt, max_tokens=60))
    assert tokens == expected
    assert 0 < confirmed <= guessed
    assert guessing.runner.steps < plain.runner.steps / 2


def test_a_draft_model_that_is_the_model_is_always_right_and_another_never_harms(prefix_runner):
    prompts = {name: _random.integers(0, VOCABULARY, 40).tolist() for name in "abc"}
    requests = [asked(name, prompt, max_tokens=30) for name, prompt in prompts.items()]
    expected = run(engine(prefix_runner), *requests)[0]
    limits = EngineLimits(2, CONTEXT, 16, draft_tokens=3)
    for draft, share in (
        (prefix_runner(limits, VOCABULARY), 1.0),
        (prefix_runner(limits, VOCABULARY, depends_on=3), 0.3),
    ):
        core = engine(prefix_runner, draft=3, proposer=DraftModelProposer(draft))
        tokens, _, guessed, confirmed = run(core, *requests)
        assert tokens == expected
        assert confirmed == guessed if share == 1 else confirmed < share * guessed
        assert draft.slots == {}


def test_in_batch_invariant_mode_a_prompt_is_cut_the_same_way_whatever_else_runs(prefix_runner):
    prompt = _random.integers(0, VOCABULARY, 70).tolist()

    def chunks(crowd):
        core = engine(prefix_runner, sequences=8, kv_tokens=4 * CONTEXT, batch_invariant=True)
        for index in range(crowd):
            core.add(asked(f"other {index}", _random.integers(0, VOCABULARY, 9 * index + 1).tolist(), max_tokens=20))
        cuts = []
        inner = core.runner.step
        core.runner.step = lambda batch: (
            cuts.extend(
                (s.start, len(s.token_ids))
                for s in batch
                if list(s.token_ids) == prompt[s.start : s.start + len(s.token_ids)] and len(s.token_ids) > 1
            ),
            inner(batch),
        )[1]
        run(core, asked("it", prompt))
        return cuts

    alone = chunks(0)
    assert alone == [(0, 25), (25, 25), (50, 20)]
    assert [cut for cut in chunks(7) if cut in alone] == alone


def test_an_embedding_is_the_hidden_state_of_the_last_token(prefix_runner):
    core = engine(prefix_runner)
    prompt = _random.integers(0, VOCABULARY, 50).tolist()
    core.add(asked("vector", prompt, embed=True))
    core.add(asked("text", prompt[:30]))
    events = [event for _ in range(12) for event in core.step().events]
    [vector] = [event for event in events if event.end == "embedded"]
    np.testing.assert_array_equal(vector.vector, core.runner.logits(prompt)[:8])
    assert sum(event.request_id == "text" for event in events) == 4
    assert broken_invariants(core) == []


def test_guesses_that_did_not_stand_have_overwritten_what_a_window_held(prefix_runner):
    """A sequence no longer than its window has all of it, unless guesses went beyond and came back."""

    class Wrong:
        def propose(self, wishes):
            return [[0] * count for _, count in wishes]

        def ended(self, state):
            pass

        close = ended

    core = engine(prefix_runner, window=20, draft=4, proposer=Wrong())
    prompt = _random.integers(1, VOCABULARY, 18).tolist()
    core.runner.logits = lambda prefix: np.eye(VOCABULARY, dtype=np.float32)[1 + len(prefix) % 7]  # never 0
    first, _, _, confirmed = run(core, asked("first", prompt, max_tokens=6))
    assert confirmed == 0
    tokens, _, _, _ = run(core, asked("second", prompt, max_tokens=6))
    assert tokens["second"] == first["first"]
