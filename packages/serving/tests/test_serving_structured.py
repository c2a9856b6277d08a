"""Claims about answers that must be something: JSON of a schema, a regex, a choice, a grammar; and log probabilities.

The models here are random: whatever fits, fits because of the grammar.
"""

from __future__ import annotations

import json
import math
import re

import httpx
import jsonschema
import openai
import pytest

from fulmen_core.registry import Registry
from fulmen_serving.engine.model_process import ModelProcess
from fulmen_serving.grammar.compiler import GrammarCompiler
from fulmen_serving.loading import ServingOptions, load_service, plan_model

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
    },
    "required": ["name", "age", "tags", "next"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "boolean"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}
SAY = [{"role": "user", "content": "a fox"}]


@pytest.fixture(scope="module")
def client(kit):
    with (
        kit.service(kit.runner(parrot=False, context=1024)) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as made,
    ):
        yield made


def ask(client, **asked):
    return client.chat.completions.create(model="parrot", messages=SAY, **asked)


def json_format(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, **more}}


@pytest.mark.parametrize("own_process", [False, True], ids=["thread", "process"])
def test_a_real_models_random_weights_give_json_of_the_schema_at_temperature_one(kit, nano_directory, own_process):
    options = ServingOptions(nano_directory, guarded=False, max_sequences=4, max_context=512)
    registry = Registry.discover()
    process = ModelProcess(plan_model(options, registry)) if own_process else None
    service = load_service(options, registry, process)
    try:
        with (
            kit.server(service) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client,
        ):
            done = client.chat.completions.create(
                model="nano", messages=SAY, response_format=json_format(SCHEMA, strict=True), temperature=1, n=4
            )
    finally:
        service.close()
    assert [choice.finish_reason for choice in done.choices] == ["stop"] * 4
    answers = [json.loads(choice.message.content) for choice in done.choices]
    for answer in answers:
        jsonschema.validate(answer, SCHEMA)
    assert len({json.dumps(answer) for answer in answers}) > 1


def test_streamed_json_is_json_too_and_so_is_a_json_object(client):
    chunks = ask(client, response_format=json_format(SCHEMA), stream=True)
    jsonschema.validate(json.loads("".join(c.choices[0].delta.content or "" for c in chunks)), SCHEMA)
    for seed in range(3):
        done = ask(client, response_format={"type": "json_object"}, seed=seed, logit_bias={"80": 3})
        if done.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(done.choices[0].message.content), dict)


@pytest.mark.parametrize(
    ("structured", "fits"),
    [
        ({"regex": r"[a-c]{3}/\d{2}"}, re.compile(r"[a-c]{3}/[0-9]{2}").fullmatch),
        ({"choice": ["yes", "no", 'may"be\n', "é"]}, ["yes", "no", 'may"be\n', "é"].__contains__),
        ({"grammar": 'start: "(" start ")" | "x"'}, re.compile(r"\(*x\)*").fullmatch),
        ({"json": json.dumps({"type": "integer", "minimum": 3, "maximum": 5})}, ["3", "4", "5"].__contains__),
    ],
    ids=["regex", "choice", "grammar", "json"],
)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_p": 0.5}])
def test_vllms_fields_bind_chats_and_texts(client, structured, fits, sampling):
    extra = {"structured_outputs": structured}
    text = ask(client, extra_body=extra, **sampling).choices[0].message.content
    assert fits(text.strip() if "json" in structured else text), text
    done = client.completions.create(model="parrot", prompt="a", max_tokens=900, extra_body=extra, **sampling)
    assert fits(done.choices[0].text), done.choices[0].text
    assert done.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        (
            {"response_format": json_format({"properties": {"a": {"items": {"type": "objekt"}}}}, strict=True)},
            "response_format.json_schema.schema.properties.a.items",
            "objekt",
        ),
        ({"response_format": json_format({"if": {}}, strict=True)}, "response_format.json_schema.schema", '"if"'),
        ({"structured_outputs": {"regex": "[a-"}}, "structured_outputs.regex", "unclosed character class"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar", 'at 1(8): unknown name: "x"'),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "no JSON"),
        ({"structured_outputs": {}}, "structured_outputs", "one of 'json', 'regex'"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "one of"),
        ({"structured_outputs": {"regx": "a"}}, "structured_outputs.regx", "did you mean 'regex'?"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex", "at least 1 character"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "give one",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "belongs to"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"top_logprobs": 2}, "top_logprobs", "needs 'logprobs'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(client, asked, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, extra_body=asked)
    assert refused.value.param == param
    assert words in refused.value.message


def test_a_schema_that_is_not_strict_leaves_out_what_cannot_be_enforced(client):
    schema = {"type": "boolean", "if": {"const": True}}
    assert json.loads(ask(client, response_format=json_format(schema)).choices[0].message.content) in (True, False)


def test_without_the_extra_a_sentence_says_what_to_install(client, monkeypatch):
    monkeypatch.setattr(GrammarCompiler, "available", staticmethod(lambda: False))
    with pytest.raises(openai.BadRequestError, match=r"pip install 'fulmen-serving\[structured\]'") as refused:
        ask(client, response_format={"type": "json_object"})
    assert (refused.value.param, refused.value.code) == ("response_format", "unsupported_parameter")
    assert ask(client, max_tokens=2).choices[0].message.content is not None


def check_chat_logprobs(entries, top):
    for entry in entries:
        if entry.bytes is None:
            assert entry.token.startswith("<|")
        else:
            assert entry.token == bytes(entry.bytes).decode("utf-8", "replace")
        assert len(entry.top_logprobs) == top
        likeliest = [other.logprob for other in entry.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert entry.logprob <= (likeliest or [0.0])[0] <= 0
        assert sum(map(math.exp, likeliest)) <= 1 + 1e-9


@pytest.mark.parametrize("top", [0, 3])
def test_chat_log_probabilities_spell_the_answer_streamed_and_not(client, top):
    asked = {"logprobs": True, "top_logprobs": top, "max_tokens": 30, "seed": 5}
    done = ask(client, **asked).choices[0]
    check_chat_logprobs(done.logprobs.content, top)
    spelled = b"".join(bytes(entry.bytes or ()) for entry in done.logprobs.content)
    assert spelled.decode("utf-8", "replace") == done.message.content
    streamed = [c.choices[0] for c in ask(client, stream=True, **asked)]
    entries = [entry for choice in streamed if choice.logprobs for entry in choice.logprobs.content]
    assert entries == done.logprobs.content


@pytest.mark.parametrize("seed", range(8))
def test_text_log_probabilities_have_offsets_into_the_text(client, seed):
    done = client.completions.create(model="parrot", prompt="a", max_tokens=40, logprobs=2, seed=seed, temperature=1.5)
    text, told = done.choices[0].text, done.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert told.text_offset == sorted(told.text_offset)
    for token, logprob, top, offset in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset, strict=True
    ):
        assert 2 <= len(top) <= 3
        assert top[token] == logprob <= max(top.values())
        if not token.startswith(("bytes:", "<|")):
            assert text[offset : offset + len(token)] == token


def test_log_probabilities_never_tell_what_stop_strings_and_the_guard_took(kit):
    with (
        kit.service(guard=kit.WordGuard(forbidden="lazy")) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        say = [{"role": "user", "content": "The fox jumps over the lazy dog"}]
        create = client.chat.completions.create
        cut = create(model="parrot", messages=say, logprobs=True, stop=["over"]).choices[0]
        assert cut.message.content == "The fox jumps "
        assert "over" not in "".join(entry.token for entry in cut.logprobs.content)
        guarded = create(model="parrot", messages=say, logprobs=True).choices[0]
        assert guarded.finish_reason == "content_filter"
        spelled = "".join(entry.token for entry in guarded.logprobs.content)
        assert guarded.message.content.startswith(spelled)
        assert "la" not in spelled


def test_the_request_without_any_of_it_has_null_log_probabilities(client):
    base = str(client.base_url)
    body = {"model": "parrot", "messages": SAY, "max_tokens": 3, "logprobs": False}
    answer = httpx.post(f"{base}chat/completions", json=body).json()
    assert answer["choices"][0]["logprobs"] is None
