"""The draw from a softmax: each token has exactly its share of the numbers between 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.softmax_draw import draw_from_likeliest, draw_softmax

NUMBERS = 4096
EVEN = (np.arange(NUMBERS) + 0.5) / NUMBERS

rows = st.tuples(st.integers(0, 2**32), st.integers(1, 700), st.floats(0.1, 12.0), st.booleans())
temperatures = st.sampled_from([1.0, 0.3, 0.7, 2.0])


def logits_of(row) -> np.ndarray:
    seed, size, scale, ties = row
    random = np.random.default_rng(seed)
    logits = random.normal(scale=scale, size=size).astype(np.float32)
    logits[random.random(size) < 0.2] = -np.inf
    logits[0] = max(logits[0], -30)
    return np.round(logits) if ties else logits


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)
    return np.asarray(weights / weights.sum())


@settings(max_examples=40, deadline=None)
@given(rows, temperatures)
def test_of_evenly_spaced_numbers_each_token_gets_its_probability(row, temperature) -> None:
    logits = logits_of(row)
    many = np.broadcast_to(logits, (NUMBERS, len(logits)))
    drawn = draw_softmax(many, many.max(axis=1), np.full(NUMBERS, temperature), EVEN)
    counts = np.bincount(drawn, minlength=len(logits))
    expected = softmax(logits, temperature) * NUMBERS
    assert counts[np.isneginf(logits)].sum() == 0
    np.testing.assert_allclose(counts, expected, atol=1 + 1e-5 * NUMBERS)  # an interval's ends, and float32


@settings(max_examples=40, deadline=None)
@given(rows, temperatures, st.integers(0, 80), st.sampled_from([0.2, 0.9, 0.999, 1.0]))
def test_of_the_likeliest_each_gets_its_share_of_what_is_kept(row, temperature, top_k, top_p) -> None:
    logits = logits_of(row)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    probabilities = softmax(logits[order], temperature)
    before = np.cumsum(probabilities) - probabilities
    if top_p < 1 and np.abs(before - top_p).min() < 1e-5:
        return  # float32 may count one token more or less here
    kept = order[before < top_p] if top_p < 1 else order
    expected = np.zeros(len(logits))
    expected[kept] = softmax(logits[kept], temperature) * 512
    numbers = (np.arange(512) + 0.5) / 512
    drawn = [draw_from_likeliest(logits, temperature, top_k, top_p, float(number)) for number in numbers]
    np.testing.assert_allclose(np.bincount(drawn, minlength=len(logits)), expected, atol=1.01)


@pytest.mark.parametrize("vocab_size", [32_000, 32_768])
def test_a_large_vocabulary_is_drawn_from_whole_and_from_its_likeliest(vocab_size) -> None:
    random = np.random.default_rng()
    logits = (random.normal(size=vocab_size) * random.choice([0.5, 3])).astype(np.float32)
    numbers = np.sort(random.random(64))
    many = np.broadcast_to(logits, (64, vocab_size))
    drawn = draw_softmax(many, many.max(axis=1), np.ones(64), numbers)
    reference = np.searchsorted(np.cumsum(softmax(logits, 1.0)), numbers, side="right")
    assert np.count_nonzero(drawn != reference) <= 2  # a number beside an interval's end
    for top_p in (0.3, 0.95):
        likeliest = np.argsort(-logits, kind="stable")
        mass = np.cumsum(softmax(logits, 1.0)[likeliest])
        kept = set(likeliest[: int(np.searchsorted(mass, top_p * (1 + 1e-5))) + 1].tolist())
        assert {draw_from_likeliest(logits, 1.0, 0, top_p, float(number)) for number in numbers} <= kept


@pytest.mark.parametrize("number", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_numbers_draw_tokens_that_have_a_probability(number) -> None:
    logits = np.full((1, 200), -np.inf, np.float32)
    logits[0, [3, 77, 140]] = [1.0, 2.0, 0.5]
    assert draw_softmax(logits, logits.max(axis=1), np.ones(1), np.array([number]))[0] in (3, 77, 140)
    assert draw_from_likeliest(logits[0], 1.0, 2, 1.0, number) in (3, 77)
