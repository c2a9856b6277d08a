"""Claims about constrained answers and log probabilities in the engine, whatever the grammar's language."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.log_probabilities import log_probabilities
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import Sampler, SamplingParams, sample_batch
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.sequence import GenerationRequest

LIMITS = EngineLimits(max_sequences=3, max_context=64, max_step_tokens=16)


class Rising:
    """Each token must be larger than the last; complete with the largest of the vocabulary. "broken" cannot go on."""

    def __init__(self, text: str) -> None:
        self.text, self.last = text, -1
        self.finished = False

    def allows(self, token):
        if self.text == "broken":
            raise UserError("the grammar is too complex")
        return token > self.last

    def allowed(self, vocab_size):
        return np.arange(vocab_size) > self.last

    def accept(self, token):
        self.last, self.finished = token, token == 39


def run(core):
    tokens, ends = {}, {}
    while core.has_work:
        for event in core.step().events:
            if event.token is not None:
                tokens.setdefault(event.request_id, []).append(event.token)
            if event.end:
                ends[event.request_id] = event
    return tokens, ends


def request(name, grammar="", params=None, **fields):
    return GenerationRequest(
        name, [3, 4], params or SamplingParams(max_tokens=50), (1, 0), frozenset(), grammar=grammar, **fields
    )


@pytest.mark.parametrize("params", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.4}, {"frequency_penalty": 1.0}])
def test_every_token_is_allowed_and_a_complete_answer_ends_at_once(prefix_runner, params):
    core = EngineCore(prefix_runner(LIMITS), Rising)
    core.add(request("bound", "rising", SamplingParams(max_tokens=50, **params)))
    core.add(request("free"))
    tokens, ends = run(core)
    assert tokens["bound"] == sorted(set(tokens["bound"]))
    assert tokens["bound"][-1] == 39
    assert ends["bound"].end == "stop"
    assert tokens["free"] != sorted(tokens["free"])


def test_a_constraint_that_cannot_go_on_ends_its_own_answer_only(prefix_runner):
    core = EngineCore(prefix_runner(LIMITS), Rising)
    core.add(request("bad", "broken"))
    core.add(request("good", "rising"))
    _, ends = run(core)
    assert ends["bad"].end == "error"
    assert "too complex" in ends["bad"].message
    assert ends["good"].end == "stop"


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([{}, {"top_k": 4}, {"top_p": 0.7}]))
def test_allowed_tokens_keep_their_share_of_the_probability(seed, cut):
    logits_V = np.random.default_rng(seed).normal(size=12).astype(np.float32)
    constraint = Rising("")
    constraint.last = 5
    masked_V = np.where(constraint.allowed(12), logits_V, np.float32(-np.inf))
    params = SamplingParams(**cut)
    bound, masked = Sampler(params, seed), Sampler(params, seed + 1)
    draws = 2500
    got = np.bincount([bound.sample(logits_V, constraint) for _ in range(draws)], minlength=12) / draws
    expected = np.bincount([masked.sample(masked_V) for _ in range(draws)], minlength=12) / draws
    np.testing.assert_allclose(got, expected, atol=6 * np.sqrt(0.5 / draws))
    assert got[:6].sum() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 25), st.booleans())
def test_log_probabilities_are_the_log_softmax_and_the_likeliest_come_first(seed, size, top, ties):
    random = np.random.default_rng(seed)
    logits_V = random.normal(scale=4, size=size).astype(np.float32)
    logits_V = np.round(logits_V) if ties else logits_V
    taken = int(random.integers(size))
    reference_V = logits_V.astype(np.longdouble)
    reference_V -= np.log(np.exp(reference_V - reference_V.max()).sum()) + reference_V.max()
    told = log_probabilities(logits_V, taken, top)
    assert told.taken.token == taken
    assert told.taken.log_probability == pytest.approx(float(reference_V[taken]), abs=1e-9)
    order = np.argsort(-logits_V, kind="stable")[:top]
    assert [entry.token for entry in told.likeliest] == order.tolist()
    np.testing.assert_allclose([e.log_probability for e in told.likeliest], reference_V[order].astype(float), atol=1e-9)


def test_log_probabilities_come_with_each_token_of_the_requests_that_ask(prefix_runner):
    core = EngineCore(prefix_runner(LIMITS))
    core.add(request("asks", params=SamplingParams(temperature=0, max_tokens=5), logprobs=2))
    core.add(request("not"))
    while core.has_work:
        for event in core.step().events:
            assert (event.logprobs is None) == (event.request_id == "not")
            if event.logprobs is not None:
                assert event.logprobs.taken == event.logprobs.likeliest[0]  # greedy
                assert event.logprobs.taken.token == event.token
                assert len(event.logprobs.likeliest) == 2


def test_a_batch_draws_what_each_sampler_draws_alone():
    random = np.random.default_rng()
    kinds = [{}, {"temperature": 0}, {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.8}, {"presence_penalty": 1.0}]
    params = [SamplingParams(**kinds[i % len(kinds)]) for i in range(13)]
    together, alone = ([Sampler(p, i) for i, p in enumerate(params)] for _ in range(2))
    for scale in (0.5, 1, 4, 4, 1):
        logits_SV = (random.standard_normal((13, 4097)) * scale).astype(np.float32)
        logits_SV[7, 3] = np.nan
        batch = sample_batch(together, logits_SV)
        for row, (sampler, token) in enumerate(zip(alone, batch, strict=True)):
            if row == 7:
                assert isinstance(token, UserError)
            else:
                assert sampler.sample(logits_SV[row]) == token
