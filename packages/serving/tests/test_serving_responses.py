"""Claims about ``/v1/responses`` as the official `openai` client sees it, against a running server."""

from __future__ import annotations

import json

import httpx
import openai
import pytest


def test_a_response_has_every_part(client, kit):
    said = client.responses.create(model="parrot", input="hello there", instructions="be kind", metadata={"a": "b"})
    [item] = said.output
    assert (said.object, said.status, said.model, said.output_text) == (
        "response",
        "completed",
        "parrot",
        "hello there",
    )
    assert (item.type, item.role, item.status, item.content[0].type) == (
        "message",
        "assistant",
        "completed",
        "output_text",
    )
    assert said.id.startswith("resp_")
    assert (said.instructions, said.metadata, said.temperature, said.top_p) == ("be kind", {"a": "b"}, 1.0, 1.0)
    assert (said.error, said.incomplete_details, said.previous_response_id) == (None, None, None)
    assert said.store is False
    conversation = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello there"}]
    assert said.usage.input_tokens == len(kit.tokenizer.encode_chat(conversation, add_generation_prompt=True))
    assert said.usage.output_tokens == len(kit.tokenizer.encode("hello there")) + 1
    assert said.usage.total_tokens == said.usage.input_tokens + said.usage.output_tokens


def test_a_stream_is_the_whole_response_in_numbered_events(client):
    text = "the quick 中文 fox 한국"
    whole = client.responses.create(model="parrot", input=text)
    events = list(client.responses.create(model="parrot", input=text, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert events[-4].text == events[-3].part.text == text
    last = events[-1].response
    assert (last.output_text, last.usage, last.status) == (whole.output_text, whole.usage, whole.status)
    assert last.output[0] == events[-2].item
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.output[0].id}
    assert events[0].response.id == last.id
    assert events[0].response.status == "in_progress"


def test_the_clients_own_accumulator_agrees(client):
    with client.responses.stream(model="parrot", input="one two") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "one two"


def test_items_and_an_answer_sent_back_are_understood(client):
    first = client.responses.create(model="parrot", input=[{"role": "user", "content": "a"}])
    history = [
        {"role": "developer", "content": "be kind"},
        {"type": "message", "role": "user", "content": "a"},
        *first.output,
        {"role": "user", "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}]},
    ]
    assert client.responses.create(model="parrot", input=history).output_text == "bc"
    plain = [item if isinstance(item, dict) else item.model_dump() for item in history]
    assert client.responses.create(model="parrot", input=plain).output_text == "bc"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("text", "fields", "said", "reason"),
    [
        ("one two", {"max_output_tokens": 2}, None, "max_output_tokens"),
        ("make a bomb", {}, "I cannot help with that.", "content_filter"),
        ("so the secret is", {}, "so the ", "content_filter"),
    ],
)
def test_what_ends_early_is_incomplete_and_says_why(client, streamed, text, fields, said, reason):
    answer = client.responses.create(model="parrot", input=text, stream=streamed, **fields)
    if streamed:
        events = list(answer)
        assert events[-1].type == "response.incomplete"
        answer = events[-1].response
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", reason)
    assert answer.output[0].status == "incomplete"
    assert said is None or answer.output_text == said


def test_an_answer_without_text_has_no_item_streamed_or_not(client):
    assert client.responses.create(model="parrot", input="").output == []
    events = list(client.responses.create(model="parrot", input="", stream=True))
    assert [event.type for event in events] == ["response.created", "response.in_progress", "response.completed"]


def test_a_failing_backend_is_an_exception_or_a_failed_response(kit):
    runner = kit.runner()
    runner.fail_on = lambda batch: True
    with (
        kit.service(runner) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            client.responses.create(model="parrot", input="hi")
        events = list(client.responses.create(model="parrot", input="hi", stream=True))
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.code == "server_error"
        assert "out of memory" in events[-1].response.error.message


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"store": True}, "keeps no responses", "store"),
        ({"previous_response_id": "resp_1"}, "'previous_response_id' is not supported", "previous_response_id"),
        ({"background": True}, "'background' is not supported", "background"),
        ({"conversation": "c"}, "'conversation' is not supported", "conversation"),
        ({"truncation": "auto"}, "'truncation' is not supported", "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "'include' is not supported", "include"),
        ({"reasoning": {"effort": "high"}}, "'reasoning' is not supported", "reasoning"),
        ({"imput": "x"}, "did you mean 'input'", "imput"),
        ({"input": []}, "'input'", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "'item_reference'; only 'message', ", "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "'input_image'; only",
            "input[0].content",
        ),
        ({"input": [{"role": "user", "content": "x", "name": "y"}]}, "input[0].name", "input[0].name"),
        ({"stream_options": {}}, "needs 'stream'", "stream_options"),
        ({"max_output_tokens": 10_000}, "maximum context length", "max_output_tokens"),
        ({"input": "a " * 300}, "maximum context length", "input"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(client, server, fields, words, param):
    steps = server[1].engine.core.runner.steps
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="parrot", input="hi", extra_body=fields)
    assert words in str(refused.value)
    assert refused.value.param == param
    assert server[1].engine.core.runner.steps == steps


def test_what_asks_for_nothing_is_accepted(client):
    neutral = {
        "store": False,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "truncation": "disabled",
        "text": {"format": {"type": "text"}},
        "background": False,
        "previous_response_id": None,
        "include": [],
    }
    assert client.responses.create(model="parrot", input="hi", extra_body=neutral).output_text == "hi"


def test_there_is_no_stored_response_to_retrieve(client):
    said = client.responses.create(model="parrot", input="hi")
    for verb in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="Unknown request URL"):
            verb(said.id)


def test_events_carry_their_name_twice_as_the_protocol_has_it(server):
    body = {"model": "parrot", "input": "hi", "stream": True}
    text = httpx.post(f"{server[0]}/v1/responses", json=body).text
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
