"""Claims about ``/v1/embeddings`` as the official `openai` client sees it, and about whose vectors they are."""

from __future__ import annotations

import dataclasses

import httpx
import numpy as np
import openai
import pytest

from fulmen_core.registry import Registry
from fulmen_serving.api.edge import Edge
from fulmen_serving.loading import ServingOptions, load_service
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_store import KeyLimits
from fulmen_serving.platform.platform import Platform


def client_of(url, key="none"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30)


def embeds(service):
    service.model = dataclasses.replace(service.model, embeds=True)
    return service


@pytest.fixture(scope="module")
def server(kit):
    with kit.service(kit.runner(slots=3, parrot=False)) as service, kit.server(embeds(service)) as url:
        yield url, service


@pytest.fixture(scope="module")
def client(server):
    with client_of(server[0]) as made:
        yield made


def vector(service, ids):
    expected = service.engine.core.runner.logits(ids)[:8].astype(np.float64)
    return expected / np.linalg.norm(expected)


def test_each_text_has_its_own_vector_of_length_one_in_order(client, server, kit):
    texts = [f"text number {number}" for number in range(11)]  # more than run at once
    answer = client.embeddings.create(model="parrot", input=texts)
    assert [one.index for one in answer.data] == list(range(11))
    for text, one in zip(texts, answer.data, strict=True):
        np.testing.assert_allclose(one.embedding, vector(server[1], kit.tokenizer.encode_prompt(text)), atol=1e-6)
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-6)
    assert answer.model == "parrot"
    assert answer.usage.prompt_tokens == sum(len(kit.tokenizer.encode_prompt(text)) for text in texts)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens


def test_floats_and_base64_are_the_same_float32(client, server):
    floats = client.embeddings.create(model="parrot", input="a text", encoding_format="float").data[0].embedding
    packed = client.embeddings.create(model="parrot", input="a text").data[0].embedding  # the client asks for base64
    assert np.array_equal(np.array(floats, np.float32), np.array(packed, np.float32))
    body = {"model": "parrot", "input": "a text", "encoding_format": "base64"}
    assert isinstance(httpx.post(f"{server[0]}/v1/embeddings", json=body).json()["data"][0]["embedding"], str)


def test_a_text_its_tokens_and_either_in_a_list_are_the_same(client, kit):
    ids = kit.tokenizer.encode_prompt("one two")
    vectors = [client.embeddings.create(model="parrot", input=one).data for one in ("one two", ids, ["one two"], [ids])]
    assert [len(data) for data in vectors] == [1] * 4
    assert all(data[0].embedding == vectors[0][0].embedding for data in vectors)
    two = client.embeddings.create(model="parrot", input=[ids, [5, 6]]).data
    assert (len(two), two[0].embedding) == (2, vectors[0][0].embedding)


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"dimensions": 4}, "'dimensions' is not supported", "dimensions"),
        ({"input": ""}, "empty", "input"),
        ({"input": []}, "'input'", "input"),
        ({"input": [[]]}, "empty", "input"),
        ({"input": ["x", ""]}, "input 1 is empty", "input"),
        ({"input": ["x"] * 2049}, "'input'", "input"),
        ({"input": {"x": 1}}, "a text, a list of token ids", "input"),
        ({"input": [True]}, "input 0 is neither", "input"),
        ({"input": [9999]}, "outside the vocabulary", "input"),
        ({"input": [[1], [-1]]}, "outside the vocabulary", "input[1]"),
        ({"input": ["x", "a " * 300]}, "maximum context length", "input[1]"),
        ({"encoding_format": "int8"}, "'encoding_format'", "encoding_format"),
        ({"imput": "x"}, "did you mean 'input'", "imput"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name_before_the_model_runs(client, server, fields, words, param):
    steps = server[1].engine.core.runner.steps
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="parrot", input="hi", encoding_format="float", extra_body=fields)
    assert words in str(refused.value)
    assert refused.value.param == param
    assert server[1].engine.core.runner.steps == steps


def test_another_model_and_a_backend_without_hidden_states_are_refused(client, kit):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.embeddings.create(model="text-embedding-3-small", input="hi")
    with (
        kit.service() as service,
        kit.server(service) as url,
        client_of(url) as other,
        pytest.raises(openai.NotFoundError, match="backend 'test' gives no hidden states"),
    ):
        other.embeddings.create(model="parrot", input="hi")


def test_a_failing_backend_and_a_vector_of_no_numbers_are_exceptions(kit):
    runner = kit.runner()
    with kit.service(runner) as service, kit.server(embeds(service)) as url, client_of(url) as client:
        runner.fail_on = lambda batch: True
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            client.embeddings.create(model="parrot", input=["a", "b"])
        runner.fail_on = lambda batch: False
        runner.logits = lambda prefix: np.full(runner.vocab_size, np.nan, np.float32)
        with pytest.raises(openai.InternalServerError, match="not finite"):
            client.embeddings.create(model="parrot", input="a")
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slots are free")


def test_tokens_of_all_texts_are_charged_once_and_limited(kit, tmp_path):
    platform = Platform(Database(str(tmp_path / "keys.db")))
    secret, key = platform.keys.create("ci", limits=KeyLimits(tokens_per_minute=60))
    with (
        kit.service(kit.runner(slots=2)) as service,
        kit.server(embeds(service), edge=Edge(platform=platform)) as url,
        client_of(url, secret) as client,
    ):
        used = client.embeddings.create(model="parrot", input=[[1, 2, 3]] * 5).usage.prompt_tokens
        assert used == 15
        with pytest.raises(openai.RateLimitError, match="tokens per minute"):
            client.embeddings.create(model="parrot", input=[[1, 2, 3]] * 20)
    platform.meter.flush()
    [row] = platform.usage.report(key=key.id)
    assert (row.used.requests, row.used.prompt_tokens, row.used.completion_tokens) == (1, 15, 0)
    platform.close()


def test_embeddings_and_answers_run_beside_each_other_and_change_nothing(kit):
    runner = kit.runner(parrot=False, slots=4)
    with kit.service(runner) as service, kit.server(embeds(service)) as url, client_of(url) as client:
        asked = {"model": "parrot", "messages": [{"role": "user", "content": "go"}], "seed": 3, "max_tokens": 30}
        alone = client.chat.completions.create(**asked).choices[0].message.content
        stream = client.chat.completions.create(**asked, stream=True)
        vectors = client.embeddings.create(model="parrot", input=["a", "b", "c", "d", "e"]).data
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == alone
        assert len({tuple(one.embedding) for one in vectors}) == 5
        assert 'fulmen_requests_total{end="embedded"} 5.0' in httpx.get(f"{url}/metrics").text
    assert sorted(len(record["answers"]) for record in kit.records) == [0, 1, 1]


def test_the_vector_is_the_models_final_normed_hidden_state_of_the_last_token(kit, nano_directory):
    import torch

    from fulmen_core.model.checkpoint import load_model

    model = load_model(nano_directory).double().eval()
    texts = ["The quick brown fox", "jumps", "中文 over the lazy dog. 0123456789 " * 3]
    service = load_service(ServingOptions(nano_directory, guarded=False, max_sequences=2), Registry.discover())
    try:
        with kit.server(service) as url, client_of(url) as client:
            answer = client.embeddings.create(model=service.model.name, input=texts)
    finally:
        service.close()
    for text, one in zip(texts, answer.data, strict=True):
        with torch.no_grad():
            hidden_D = model(torch.tensor([service.tokenizer.encode_prompt(text)])).hidden_BTD[0, -1].numpy()
        np.testing.assert_allclose(one.embedding, hidden_D / np.linalg.norm(hidden_D), atol=2e-5)
