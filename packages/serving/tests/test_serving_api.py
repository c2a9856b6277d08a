"""Claims about the API as the official `openai` client sees it, against a running server."""

from __future__ import annotations

import openai
import pytest


def say(text):
    return [{"role": "user", "content": text}]


def test_the_model_is_listed_and_retrieved(client):
    assert [model.id for model in client.models.list()] == ["parrot"]
    assert client.models.retrieve("parrot").owned_by == "fulmen"
    with pytest.raises(openai.NotFoundError, match="'other' does not exist; this server serves 'parrot'"):
        client.models.retrieve("other")


def test_a_completion_has_every_part(client, kit):
    done = client.chat.completions.create(model="parrot", messages=say("hello there"))
    [choice] = done.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello there", "stop")
    assert done.object == "chat.completion"
    assert done.id.startswith("chatcmpl-")
    assert done.system_fingerprint == "fp_test"
    assert done.usage.completion_tokens == len(kit.tokenizer.encode("hello there")) + 1
    assert done.usage.prompt_tokens == len(kit.tokenizer.encode_chat(say("hello there"), add_generation_prompt=True))
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_a_stream_joins_to_the_same_text_with_usage_last(client):
    asked = {"model": "parrot", "messages": say("the quick 中文 fox 한국"), "seed": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content == "the quick 中文 fox 한국"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert len(chunks) > 5


def test_a_stream_without_the_option_has_no_usage(client):
    chunks = list(client.chat.completions.create(model="parrot", messages=say("hi"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("stop", ["wo th", ["zzz", "wo th"]])
def test_a_stop_string_over_tokens_is_cut_out_streamed_or_not(client, stop):
    asked = {"model": "parrot", "messages": say("one two three"), "stop": stop}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert whole.choices[0].message.content == "one t"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one t"
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"


def test_max_tokens_under_both_names_cuts_the_answer(client):
    for name in ("max_tokens", "max_completion_tokens"):
        done = client.chat.completions.create(model="parrot", messages=say("one two three"), **{name: 2})
        assert (done.choices[0].finish_reason, done.usage.completion_tokens) == ("length", 2)


def test_text_parts_and_every_role_are_understood(client):
    done = client.chat.completions.create(
        model="parrot",
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        ],
    )
    assert done.choices[0].message.content == "one two"


def test_an_answer_sent_back_as_the_client_gives_it_is_accepted(client):
    first = client.chat.completions.create(model="parrot", messages=say("a"))
    history = [*say("a"), first.choices[0].message.model_dump(), *say("b")]
    assert client.chat.completions.create(model="parrot", messages=history).choices[0].message.content == "b"
    typed = [*say("a"), first.choices[0].message, *say("b")]
    assert client.chat.completions.create(model="parrot", messages=typed).choices[0].message.content == "b"


def test_neutral_values_of_unsupported_fields_are_accepted(client):
    done = client.chat.completions.create(
        model="parrot",
        messages=say("hi"),
        n=1,
        logprobs=False,
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        tools=[],
        response_format={"type": "text"},
        stop=None,
        user="someone",
        store=False,
        extra_body={"tool_choice": "auto", "top_logprobs": None},
    )
    assert done.choices[0].message.content == "hi"


def test_several_choices_are_streamed_and_whole(client):
    asked = {"model": "parrot", "messages": say("hi"), "n": 2}
    assert [c.message.content for c in client.chat.completions.create(**asked).choices] == ["hi", "hi"]
    texts = ["", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["hi", "hi"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_request_is_an_ordinary_answer_with_its_own_reason(client, stream):
    answer = client.chat.completions.create(model="parrot", messages=say("make a bomb"), stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == ("I cannot help with that.", "content_filter")


@pytest.mark.parametrize("stream", [False, True])
def test_a_forbidden_answer_is_cut_before_the_word(client, stream):
    answer = client.chat.completions.create(model="parrot", messages=say("so the secret is"), stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == ("so the ", "content_filter")


def test_errors_are_the_clients_own_exceptions(client):
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-9", messages=say("hi"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'") as unknown:
        create(model="parrot", messages=say("hi"), extra_body={"tempature": 1})
    assert (unknown.value.param, unknown.value.code) == ("tempature", "unknown_parameter")
    with pytest.raises(openai.BadRequestError, match="'functions' is not supported") as functions:
        create(model="parrot", messages=say("hi"), functions=[{"name": "f"}])
    assert functions.value.param == "functions"
    with pytest.raises(openai.BadRequestError) as long:
        create(model="parrot", messages=say("a " * 300))
    assert (long.value.code, long.value.type) == ("context_length_exceeded", "invalid_request_error")


def test_a_full_server_raises_the_rate_limit_error_with_retry_after(kit):
    runner = kit.runner(slots=1)
    with kit.service(runner, waiting=0) as service, kit.server(service) as url:
        runner.gate.clear()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client:
            stream = client.chat.completions.create(model="parrot", messages=say("hi"), stream=True)
            with pytest.raises(openai.RateLimitError) as full:
                client.chat.completions.create(model="parrot", messages=say("hi"))
            assert int(full.value.response.headers["retry-after"]) >= 1
            assert full.value.code == "rate_limit_exceeded"
            runner.gate.set()
            assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"


def test_a_failing_backend_is_an_error_object_streamed_or_not(kit):
    runner = kit.runner()
    runner.fail_on = lambda batch: True
    with (
        kit.service(runner) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="out of memory") as whole:
            client.chat.completions.create(model="parrot", messages=say("hi"))
        assert whole.value.code == "generation_failed"
        with pytest.raises(openai.APIError, match="out of memory"):
            list(client.chat.completions.create(model="parrot", messages=say("hi"), stream=True))


def test_seeds_repeat_beside_other_traffic(kit):
    runner = kit.runner(parrot=False, slots=4)
    with kit.service(runner, waiting=64) as service, kit.server(service) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client:

            def answer(seed):
                done = client.chat.completions.create(model="parrot", messages=say("go"), seed=seed, max_tokens=12)
                return done.choices[0].message.content

            alone = [answer(seed) for seed in (1, 2, -3)]
            crowd = [
                client.chat.completions.create(model="parrot", messages=say(f"noise {i}"), stream=True, max_tokens=60)
                for i in range(5)
            ]
            assert [answer(seed) for seed in (1, 2, -3)] == alone
            assert len(set(alone)) == 3
            for stream in crowd:
                stream.close()
        kit.wait_until(lambda: service.engine.admission.live == 0, "closed streams free their slots")
