"""Claims about `/v1/completions` and the tokenizer's routes, as the official `openai` client sees a running server."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

TEXT = "the quick 中文 fox"


def endless(kit):
    """A model whose next token depends on the whole prefix, so that any mix-up of prompts shows; it never ends."""
    runner = kit.runner(parrot=False)
    plain, ends = runner.logits, list(kit.tokenizer.stop_ids)

    def logits(prefix):
        logits_V = plain(prefix)
        logits_V[ends] = -100
        return logits_V

    runner.logits = logits
    return runner


@pytest.fixture(scope="module")
def server(kit):
    with kit.service(endless(kit), guard=kit.WordGuard()) as service, kit.server(service) as url:
        yield url


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=20) as made:
        yield made


def test_a_completion_has_every_part(client, tokenizer):
    done = client.completions.create(model="parrot", prompt=TEXT, max_tokens=9, seed=1, temperature=0)
    [choice] = done.choices
    assert (done.object, done.model, done.system_fingerprint) == ("text_completion", "parrot", "fp_test")
    assert done.id.startswith("cmpl-")
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert done.usage.prompt_tokens == len(tokenizer.encode_prompt(TEXT))
    assert (done.usage.completion_tokens, done.usage.total_tokens) == (9, done.usage.prompt_tokens + 9)


def test_the_model_continues_exactly_the_prompt(client, kit, tokenizer):
    known = tokenizer.encode_prompt("lazy")
    start = len(known)
    runner = endless(kit)
    for _ in range(6):
        known.append(int(runner.logits(known).argmax()))
    done = client.completions.create(model="parrot", prompt="lazy", max_tokens=6, temperature=0)
    assert done.choices[0].text == tokenizer.decode(known[start:])


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: [p]], ids=["alone", "in a list"])
def test_text_and_its_token_ids_are_the_same_prompt(client, tokenizer, wrap):
    asked = {"model": "parrot", "max_tokens": 12, "seed": 5}
    text = client.completions.create(prompt=wrap(TEXT), **asked)
    ids = client.completions.create(prompt=wrap(tokenizer.encode_prompt(TEXT)), **asked)
    assert text.choices[0].text == ids.choices[0].text
    assert text.usage == ids.usage


def test_a_stream_joins_to_the_same_texts_with_usage_last(client):
    asked = {"model": "parrot", "prompt": TEXT, "max_tokens": 20, "seed": 3, "n": 2}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts, ends = ["", ""], [None, None]
    for chunk in chunks[:-1]:
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        ends[choice.index] = choice.finish_reason
        assert chunk.usage is None
    assert texts == [choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert texts[0] != texts[1]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


def test_a_completion_that_says_nothing_is_16_tokens_long(client):
    assert client.completions.create(model="parrot", prompt=TEXT).usage.completion_tokens == 16


def test_the_guard_judges_texts_and_token_ids_alike(client, tokenizer):
    for prompt in ("a bomb", tokenizer.encode_prompt("a bomb"), [tokenizer.encode_prompt("a bomb")]):
        done = client.completions.create(model="parrot", prompt=prompt)
        assert done.choices[0].finish_reason == "content_filter"
        assert done.choices[0].text == "I cannot help with that."
        assert done.usage.completion_tokens == 0


def test_what_the_guard_rewrites_is_what_the_model_continues(client, tokenizer):
    asked = {"model": "parrot", "max_tokens": 12, "seed": 5}
    hidden = client.completions.create(prompt="fox ##", **asked).choices[0].text
    assert client.completions.create(prompt="fox 42", **asked).choices[0].text == hidden
    assert client.completions.create(prompt=tokenizer.encode_prompt("fox 42"), **asked).usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"echo": True}, "echo", "not supported"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"best_of": 3}, "best_of", "not supported"),
        ({"prompt": ["a", "b"]}, "prompt", "one prompt"),
        ({"prompt": [1, "a"]}, "prompt", "token ids"),
        ({"prompt": [1, True]}, "prompt", "token ids"),
        ({"prompt": [1, 99999]}, "prompt", "99999 is outside the vocabulary of 512"),
        ({"prompt": [-1]}, "prompt", "-1 is outside"),
        ({"prompt": []}, "prompt", "no token"),
        ({"prompt": "fox " * 200}, "prompt", "maximum context length is 128"),
        ({"max_tokens": 127}, "max_tokens", "in the prompt"),
        ({"promt": "a"}, "promt", "did you mean 'prompt'?"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs 'stream'"),
    ],
    ids=lambda value: json.dumps(value)[:30] if isinstance(value, dict) else "",
)
def test_a_field_at_fault_is_named(server, change, param, words):
    response = httpx.post(f"{server}/v1/completions", json={"model": "parrot", "prompt": TEXT} | change)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_wrong_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="'other' does not exist"):
        client.completions.create(model="other", prompt=TEXT)


def test_tokenize_gives_what_the_model_sees_and_detokenize_takes_it_back(server, tokenizer):
    def post(path, **body):
        response = httpx.post(server + path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    ids = tokenizer.encode_prompt(TEXT)
    answer = post("/tokenize", model="parrot", prompt=TEXT, return_token_strs=True)
    assert (answer["tokens"], answer["count"], answer["max_model_len"]) == (ids, len(ids), 128)
    assert answer["token_strs"][0] == "<|endoftext|>"
    bare = post("/tokenize", prompt=TEXT, add_special_tokens=False)
    assert bare == {"tokens": tokenizer.encode(TEXT), "count": len(tokenizer.encode(TEXT)), "max_model_len": 128}
    assert post("/detokenize", tokens=bare["tokens"]) == {"prompt": TEXT}
    messages = [{"role": "user", "content": "fox"}]
    assert post("/tokenize", messages=messages)["tokens"] == tokenizer.encode_chat(messages, True)
    without = post("/tokenize", messages=messages, add_generation_prompt=False)["tokens"]
    assert without == tokenizer.encode_chat(messages)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"text": "a"}, "text"),
        ("/detokenize", {"tokens": [99999]}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_the_tokenizers_routes_name_the_field_at_fault(server, path, body, param):
    response = httpx.post(server + path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
