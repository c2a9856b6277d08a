"""Claims about the native runner's drawing of tokens: it is NumPy's, of which it differs by rounding alone."""

from __future__ import annotations

import numpy as np
import pytest

from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.softmax_draw import DrawsTokens, draw_of, draw_tokens


@pytest.fixture(scope="module", params=[1, 17, 64, 1000, 32_768])
def runner(request, tmp_path_factory):
    """One of a vocabulary that fills blocks and lanes, or does not."""
    config = load_preset("nano").model_copy(update={"vocab_size": request.param})
    directory = tmp_path_factory.mktemp("model")
    save_model(Transformer(config), directory)
    loaded = NativeRunner(directory, EngineLimits(4, 32, 32, threads=2))
    yield loaded
    loaded.close()


def rows(runner, count, spread=3.0):
    return (np.random.default_rng().standard_normal((count, runner.vocab_size)) * spread).astype(np.float32)


def test_it_is_found(runner):
    assert isinstance(runner, DrawsTokens)
    assert draw_of(runner) == runner.draw
    assert draw_of(object()) is draw_tokens


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 2.0, 1e-30])
def test_a_number_leads_to_the_token_in_whose_share_it_lies(runner, temperature):
    count, vocab_size = 512, runner.vocab_size
    logits_V = rows(runner, 1)[0]
    if vocab_size > 1:
        logits_V[:: max(2, vocab_size // 7)] = -np.inf
    numbers = np.random.default_rng().random(count)
    tokens = runner.draw(np.repeat(logits_V[None], count, axis=0), np.full(count, temperature), numbers)
    with np.errstate(over="ignore"):
        weights_V = np.exp((logits_V.astype(np.float64) - logits_V.max()) / temperature)
    ends = weights_V.cumsum() / weights_V.sum()
    shares = weights_V / weights_V.sum()
    assert (numbers < ends[tokens] + 1e-5).all()
    assert (numbers > ends[tokens] - shares[tokens] - 1e-5).all()
    assert (shares[tokens] > 0).all()


def test_numpy_and_the_kernels_draw_the_same_but_at_borders(runner):
    logits = rows(runner, 512)
    temperatures, numbers = np.full(512, 0.8), np.random.default_rng().random(512)
    same = runner.draw(logits, temperatures, numbers) == draw_tokens(logits, temperatures, numbers)
    assert same.mean() > 0.98


def test_each_row_is_drawn_by_its_own_temperature_and_number_whatever_is_beside_it(runner):
    logits = rows(runner, 33)
    temperatures = np.random.default_rng().choice([0, 0.5, 1, 3], 33)
    numbers = np.random.default_rng().random(33)
    together = runner.draw(logits, temperatures, numbers)
    alone = [runner.draw(logits[i : i + 1], temperatures[i : i + 1], numbers[i : i + 1])[0] for i in range(33)]
    assert together.tolist() == alone
    greedy = temperatures == 0
    assert (together[greedy] == logits[greedy].argmax(axis=1)).all()


def test_draws_follow_the_probabilities(runner):
    draws = 20_000 if runner.vocab_size <= 1000 else 1_000
    logits = np.repeat(rows(runner, 1, spread=1.5)[:, :50], draws, axis=0)
    padded = np.full((draws, runner.vocab_size), -np.inf, np.float32)
    padded[:, : logits.shape[1]] = logits
    tokens = runner.draw(padded, np.ones(draws), np.random.default_rng().random(draws))
    weights = np.exp(logits[0].astype(np.float64))
    expected = weights / weights.sum()
    got = np.bincount(tokens, minlength=len(expected)) / draws
    assert len(got) == len(expected)
    assert np.abs(got - expected).max() < 6 * np.sqrt(expected.max() / draws)


def test_of_its_own_logits_it_draws_as_of_any_others(runner):
    for spread in (1, 2, 4, 1, 2):
        batch = [
            SequenceStep(slot, 0, np.random.default_rng().integers(0, runner.vocab_size, spread).tolist())
            for slot in range(4)
        ]
        batch = [step._replace(wanted=spread) for step in batch]
        logits = runner.step(batch)
        temperatures = np.random.default_rng().choice([0.0, 0.0, 1.0], len(logits))
        numbers = np.random.default_rng().random(len(logits))
        assert not logits.flags.writeable
        own = runner.draw(logits, temperatures, numbers).tolist()
        assert own == runner.draw(logits.copy(), temperatures, numbers).tolist()
        assert own == runner.draw(logits, temperatures, numbers).tolist()
        greedy = temperatures == 0
        assert (np.array(own)[greedy] == logits[greedy].argmax(axis=1)).all()


def test_the_lowest_of_equals_is_the_likeliest(runner):
    logits = np.zeros((2, runner.vocab_size), np.float32)
    logits[1, runner.vocab_size // 2 :] = 1
    assert runner.draw(logits, np.zeros(2), np.zeros(2)).tolist() == [0, runner.vocab_size // 2]


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf])
def test_a_row_that_is_not_finite_gives_no_token_and_the_others_theirs(runner, value):
    logits = rows(runner, 3)
    for place in {0, runner.vocab_size // 2, runner.vocab_size - 1}:
        spoilt = logits.copy()
        spoilt[1, place] = value
        for temperature in (0.0, 1.0):
            tokens = runner.draw(spoilt, np.full(3, temperature), np.full(3, 0.5))
            assert (tokens == draw_tokens(spoilt, np.full(3, temperature), np.full(3, 0.5))).all()
            assert (tokens < 0).tolist() == [False, True, False]
    nothing = np.full((1, runner.vocab_size), -np.inf, np.float32)
    assert runner.draw(nothing, np.ones(1), np.zeros(1)).tolist() == [-1]


@pytest.mark.parametrize("number", [0.0, np.nextafter(1, 0)])
def test_a_token_of_no_probability_is_never_drawn(runner, number):
    logits = np.full((1, runner.vocab_size), -np.inf, np.float32)
    logits[0, runner.vocab_size // 3] = -3
    assert runner.draw(logits, np.ones(1), np.array([number])).tolist() == [runner.vocab_size // 3]


def test_what_does_not_fit_is_refused_before_anything_is_read(runner):
    with pytest.raises(ValueError, match="do not fit"):
        runner.draw(np.zeros((1, runner.vocab_size + 1), np.float32), np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="do not fit"):
        runner.draw(rows(runner, 2), np.zeros(1), np.zeros(2))
