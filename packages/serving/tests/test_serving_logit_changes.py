"""Claims about what requests do to logits (bias, penalties) and about seeds, as the official client sees them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from fulmen_core.sampling import Sampler, SamplingParams

START = [5, 300, 301]


@pytest.fixture(scope="module")
def client(kit):
    with (
        kit.service(kit.runner(parrot=False)) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as made,
    ):
        yield made


def text(client, **asked):
    return client.completions.create(model="parrot", prompt=START, **({"max_tokens": 20} | asked)).choices[0].text


def test_a_bias_makes_a_token_certain_and_another_impossible(client, tokenizer):
    [fox] = tokenizer.encode("Z")
    assert text(client, logit_bias={str(fox): 100}) == "Z" * 20
    assert text(client, logit_bias={str(fox): 100}, temperature=0) == "Z" * 20
    done = client.chat.completions.create(
        model="parrot", messages=[{"role": "user", "content": "a"}], logit_bias={str(fox): 100}, max_tokens=5
    )
    assert done.choices[0].message.content == "Z" * 5


def test_an_answer_that_is_to_go_on_does_not_end_at_the_models_end(client, tokenizer):
    end = {str(tokenizer.im_end_id): 100}
    asked = {"model": "parrot", "prompt": START, "max_tokens": 20, "logit_bias": end}
    ended = client.completions.create(**asked)
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("stop", 1)
    went_on = client.completions.create(**asked, extra_body={"ignore_eos": True})
    assert (went_on.choices[0].finish_reason, went_on.usage.completion_tokens) == ("length", 20)
    assert went_on.choices[0].text == ""


def test_penalties_are_those_of_openais_formula():
    random = np.random.default_rng()
    logits_V = random.standard_normal(50).astype(np.float32)
    sampler = Sampler(
        SamplingParams(temperature=0, presence_penalty=0.7, frequency_penalty=0.4, logit_bias=((7, 2.0),))
    )
    before_V, counts_V = logits_V.copy(), np.zeros(50)
    for _ in range(200):
        biased_V = logits_V + 2.0 * (np.arange(50) == 7)
        best = int((biased_V - 0.7 * (counts_V > 0) - 0.4 * counts_V).argmax())
        token = sampler.sample(logits_V)
        assert token == best
        counts_V[token] += 1
    assert (logits_V == before_V).all()
    assert np.count_nonzero(counts_V) > 10


def test_a_seed_gives_the_same_text_whatever_runs_beside_it(client):
    alone = [text(client, seed=seed, frequency_penalty=1) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        beside = list(pool.map(lambda seed: text(client, seed=seed, frequency_penalty=1), range(6)))
    assert beside == alone
    assert len(set(alone)) > 1
