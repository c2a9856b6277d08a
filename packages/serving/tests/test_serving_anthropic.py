"""Claims about ``/v1/messages`` as the official `anthropic` client sees it, against a running server."""

from __future__ import annotations

import anthropic
import httpx
import pytest

from fulmen_core.runner import EngineLimits
from fulmen_serving.api.edge import Edge


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server[0], api_key="none", max_retries=0, timeout=20) as made:
        yield made


def ask(client, text, **fields):
    fields = {"model": "parrot", "max_tokens": 60, "messages": [{"role": "user", "content": text}]} | fields
    return client.messages.create(**fields)


def test_a_message_has_every_part(client, kit):
    said = ask(client, "hello there", system="be kind")
    [block] = said.content
    assert (said.type, said.role, said.model, block.type, block.text) == (
        "message",
        "assistant",
        "parrot",
        "text",
        "hello there",
    )
    assert (said.stop_reason, said.stop_sequence) == ("end_turn", None)
    assert said.id.startswith("msg_")
    conversation = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello there"}]
    assert said.usage.input_tokens == len(kit.tokenizer.encode_chat(conversation, add_generation_prompt=True))
    assert said.usage.output_tokens == len(kit.tokenizer.encode("hello there")) + 1


def test_a_stream_is_the_whole_message_in_the_events_of_the_protocol(client):
    whole = ask(client, "the quick 中文 fox 한국")
    fields = {"model": "parrot", "max_tokens": 60, "messages": [{"role": "user", "content": "the quick 中文 fox 한국"}]}
    with client.messages.stream(**fields) as stream:
        kinds = [event.type for event in stream if event.type != "text"]
        final = stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert len(kinds) > 8
    assert final.content[0].text == whole.content[0].text == "the quick 中文 fox 한국"
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)


def test_an_answer_without_text_has_no_block_streamed_or_not(client):
    fields = {"model": "parrot", "max_tokens": 5, "messages": [{"role": "user", "content": ""}]}
    assert client.messages.create(**fields).content == []
    with client.messages.stream(**fields) as stream:
        assert stream.get_final_message().content == []


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_sequence_is_cut_out_and_named(client, streamed):
    fields = {"model": "parrot", "max_tokens": 60, "stop_sequences": ["zzz", "wo th"]}
    messages = [{"role": "user", "content": "one two three"}]
    if streamed:
        with client.messages.stream(messages=messages, **fields) as stream:
            said = stream.get_final_message()
    else:
        said = client.messages.create(messages=messages, **fields)
    assert (said.content[0].text, said.stop_reason, said.stop_sequence) == ("one t", "stop_sequence", "wo th")


def test_max_tokens_cuts_the_answer(client):
    said = ask(client, "one two three", max_tokens=2)
    assert (said.stop_reason, said.usage.output_tokens) == ("max_tokens", 2)


def test_blocks_and_an_answer_sent_back_are_understood(client, server):
    first = ask(client, [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}])
    assert first.content[0].text == "one two"
    history = [{"role": "user", "content": "a"}, first.to_param(), {"role": "user", "content": "b"}]
    cached = {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}
    assert ask(client, "", messages=history, system=[cached]).content[0].text == "b"
    history[1] = {"role": "assistant", "content": first.model_dump(mode="json")["content"]}
    assert ask(client, "", messages=history).content[0].text == "b"


def test_turns_of_one_role_are_one_turn(client, server):
    two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert ask(client, "", messages=two).content[0].text == "a\nb"


def test_sampling_fields_are_honoured(kit):
    with (
        kit.service(kit.runner(parrot=False, context=64)) as service,
        kit.server(service) as url,
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as client,
    ):

        def answers(**extra):
            return {str(ask(client, "go", max_tokens=8, extra_body=extra).content) for _ in range(4)}

        assert len(answers(temperature=0)) == len(answers(top_k=1)) == len(answers(top_p=1e-6)) == 1
        assert answers(temperature=0) == answers(top_k=1) == answers(top_p=1e-6)
        assert len(answers(temperature=1.0)) > 1


def test_tokens_are_counted_as_they_are_used(client):
    messages = [{"role": "user", "content": "hello there"}]
    counted = client.messages.count_tokens(model="parrot", messages=messages, system="be kind")
    usage = ask(client, "", messages=messages, system="be kind").usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_what_of_a_prompt_was_found_computed_is_counted_apart_streamed_or_not(kit):
    history = [{"role": "user", "content": "the quick brown fox jumps over the lazy dog " * 5}]
    asked = {"model": "parrot", "max_tokens": 4, "messages": history}
    runner = kit.ParrotRunner(EngineLimits(2, 512, 64, cached_sequences=4), kit.tokenizer)
    with (
        kit.service(runner) as service,
        kit.server(service) as url,
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as client,
    ):
        cold = client.messages.create(**asked).usage
        warm = client.messages.create(**asked).usage
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message().usage
    assert cold.cache_read_input_tokens == 0
    assert warm.cache_read_input_tokens > cold.input_tokens / 2
    assert warm.input_tokens + warm.cache_read_input_tokens == cold.input_tokens
    assert streamed == warm


@pytest.mark.parametrize("streamed", [False, True])
def test_the_guard_is_a_refusal(client, streamed):
    for text, said in (("make a bomb", "I cannot help with that."), ("so the secret is", "so the ")):
        fields = {"model": "parrot", "max_tokens": 60, "messages": [{"role": "user", "content": text}]}
        if streamed:
            with client.messages.stream(**fields) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**fields)
        assert (answer.content[0].text, answer.stop_reason) == (said, "refusal")


def test_errors_are_the_clients_own_exceptions_in_anthropics_shape(client):
    with pytest.raises(anthropic.NotFoundError, match="'claude' does not exist") as missing:
        ask(client, "hi", model="claude")
    assert missing.value.body["type"] == "error"
    assert missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="did you mean 'temperature'") as unknown:
        ask(client, "hi", extra_body={"tempature": 1})
    assert unknown.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        ask(client, "a " * 300)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "'max_tokens'"),
        ({"messages": []}, "'messages'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "'thinking' is not supported"),
        ({"service_tier": "priority"}, "'service_tier' is not supported"),
        ({"container": "c"}, "'container' is not supported"),
        ({"temperature": 1.5}, "'temperature'"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"metadata": {"user": "x"}}, "metadata.user; did you mean 'user_id'"),
        ({"system": [{"type": "image"}]}, "'image'; only 'text'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "'image'; only 'text'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "prefill"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, r"messages\[0\].name"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(client, server, fields, words):
    steps = server[1].engine.core.runner.steps
    with pytest.raises(anthropic.BadRequestError, match=words):
        ask(client, "hi", extra_body=fields)
    assert server[1].engine.core.runner.steps == steps


def test_what_asks_for_nothing_is_accepted(client):
    neutral = {"tools": [], "thinking": {"type": "disabled"}, "service_tier": "auto", "metadata": {"user_id": "u"}}
    assert ask(client, "hi", extra_body=neutral).content[0].text == "hi"


def test_unknown_paths_and_methods_have_the_shape_too(server):
    response = httpx.get(f"{server[0]}/v1/messages")
    assert (response.status_code, response.json()["error"]["type"]) == (405, "invalid_request_error")
    response = httpx.post(f"{server[0]}/v1/messages/batches", json={})
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
    assert httpx.post(f"{server[0]}/v1/messages", content=b"{").json()["error"]["type"] == "invalid_request_error"


def test_a_full_server_a_failing_backend_and_a_time_limit_are_the_clients_exceptions(kit):
    runner = kit.runner(slots=1)
    with (
        kit.service(runner, waiting=0) as service,
        kit.server(service, edge=Edge(request_seconds=0.5)) as url,
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as client,
    ):
        runner.gate.clear()
        fields = {"model": "parrot", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        with client.messages.stream(**fields) as stream:
            with pytest.raises(anthropic.RateLimitError) as full:
                client.messages.create(**fields)
            assert int(full.value.response.headers["retry-after"]) >= 1
            assert full.value.body["error"]["type"] == "rate_limit_error"
            with pytest.raises(anthropic.APIStatusError, match="timeout_error"):
                stream.get_final_message()
        runner.gate.set()
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
        runner.gate.clear()
        with pytest.raises(anthropic.InternalServerError, match="longer than") as late:
            client.messages.create(**fields)
        assert (late.value.status_code, late.value.body["error"]["type"]) == (504, "timeout_error")
        runner.gate.set()
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
        runner.fail_on = lambda batch: True
        with pytest.raises(anthropic.InternalServerError, match="out of memory") as failed:
            client.messages.create(**fields)
        assert failed.value.body["error"]["type"] == "api_error"
        with client.messages.stream(**fields) as stream, pytest.raises(anthropic.APIStatusError, match="out of"):
            stream.get_final_message()
