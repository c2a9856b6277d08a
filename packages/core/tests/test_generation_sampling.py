"""Sampling: what top-k and top-p keep, greedy ties, and random numbers that belong to one request."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.sampling import Sampler, SamplingParams

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3000)  # on both sides of the number of candidates that top-p sorts first


def random_logits(seed: int, size: int, *, ties: bool = False) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(scale=3, size=size).astype(np.float32)
    return np.round(logits) if ties else logits


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    normalised: np.ndarray = weights / weights.sum()
    return normalised


@settings(max_examples=50, deadline=None)
@given(seeds, sizes, st.integers(1, 60), st.booleans())
def test_top_k_draws_only_the_k_likeliest_and_the_lower_ids_among_equals(
    seed: int, size: int, k: int, ties: bool
) -> None:
    logits = random_logits(seed, size, ties=ties)
    likeliest = set(np.argsort(-logits, kind="stable")[:k].tolist())
    sampler = Sampler(SamplingParams(temperature=5.0, top_k=k), seed)
    assert {sampler.sample(logits) for _ in range(40)} <= likeliest


@settings(max_examples=50, deadline=None)
@given(seeds, sizes, st.floats(0.01, 0.999), st.floats(0.1, 3.0), st.booleans())
def test_top_p_draws_only_from_the_smallest_set_with_that_probability(
    seed: int, size: int, top_p: float, temperature: float, ties: bool
) -> None:
    logits = random_logits(seed, size, ties=ties)
    order = np.argsort(-logits, kind="stable")
    before = np.cumsum(probabilities(logits, temperature)[order])
    smallest = int(np.searchsorted(before, top_p - 1e-9)) + 1
    sampler = Sampler(SamplingParams(temperature=temperature, top_p=top_p), seed)
    drawn = {sampler.sample(logits) for _ in range(40)}
    assert drawn <= set(order[: smallest + 1].tolist())  # one more, for the rounding of the reference's own sum


@settings(max_examples=50, deadline=None)
@given(seeds, sizes, st.integers(0, 50), st.floats(0.05, 1.0))
def test_temperature_zero_takes_the_first_of_the_likeliest(seed: int, size: int, k: int, top_p: float) -> None:
    logits = random_logits(seed, size, ties=True)
    assert Sampler(SamplingParams(temperature=0, top_k=k, top_p=top_p)).sample(logits) == int(np.argmax(logits))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 500))
def test_a_tiny_temperature_is_greedy(seed: int, size: int) -> None:
    logits = random_logits(seed, size)
    assert Sampler(SamplingParams(temperature=1e-300), seed).sample(logits) == int(np.argmax(logits))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 30), st.sampled_from([0.3, 0.9, 1.0]), st.integers(1, 7))
def test_a_request_draws_the_same_whatever_else_is_sampled_between(
    seed: int, k: int, top_p: float, neighbours: int
) -> None:
    params = SamplingParams(temperature=0.8, top_k=k, top_p=top_p)
    steps = [random_logits(seed + step, 200) for step in range(12)]
    alone = Sampler(params, seed)
    expected = [alone.sample(logits) for logits in steps]
    watched, others = Sampler(params, seed), [Sampler(params, seed + 1 + n) for n in range(neighbours)]
    drawn = []
    for logits in steps:
        for other in others:
            other.sample(logits)
        drawn.append(watched.sample(logits))
    assert drawn == expected


def test_frequencies_follow_the_softmax() -> None:
    logits = np.array([1.0, 0.0, -np.inf, 2.0], np.float32)
    sampler = Sampler(SamplingParams(temperature=2.0), 11)
    counts = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts / 20_000, probabilities(logits, 2.0), atol=0.015)


def test_the_params_seed_wins_over_the_request_seed_and_may_be_negative() -> None:
    logits = random_logits(3, 1000)
    params = SamplingParams(seed=-5)
    draws = [[Sampler(params, request).sample(logits) for _ in range(3)] for request in (1, 2, None)]
    assert draws[0] == draws[1] == draws[2]


def test_without_a_seed_two_requests_differ() -> None:
    logits = np.zeros(1 << 20, np.float32)
    assert Sampler(SamplingParams()).sample(logits) != Sampler(SamplingParams()).sample(logits)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    logits = random_logits(0, 50)
    logits[7] = bad
    with pytest.raises(UserError, match="not finite"):
        Sampler(SamplingParams(temperature=temperature)).sample(logits)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        SamplingParams(**values)  # type: ignore[arg-type]


class Even:
    """A constraint that refuses every second token, so that many are drawn twice."""

    finished = False

    def allows(self, token: int) -> bool:
        return token % 2 == 0

    def allowed(self, vocab_size: int) -> np.ndarray:
        return np.arange(vocab_size) % 2 == 0

    def accept(self, token: int) -> None:
        pass


@settings(max_examples=50, deadline=None)
@given(
    seeds,
    st.integers(0, 12),
    st.sampled_from([{}, {"top_p": 0.8}, {"top_k": 5}, {"temperature": 0.0}]),
    st.sampled_from([None, Even()]),
)
def test_a_sampler_that_resumes_after_some_tokens_draws_as_if_never_interrupted(
    seed: int, done: int, options: dict[str, float], constraint: Even | None
) -> None:
    params = SamplingParams(presence_penalty=0.7, frequency_penalty=0.4, **options)  # type: ignore[arg-type]
    rows = [random_logits(seed + place, 40) for place in range(20)]
    whole = Sampler(params, (seed, 0))
    tokens = [whole.sample(row, constraint) for row in rows]
    resumed = Sampler(params, (seed, 0))
    resumed.resume(tokens[:done])
    assert [resumed.sample(row, constraint) for row in rows[done:]] == tokens[done:]
