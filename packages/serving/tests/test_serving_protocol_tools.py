"""Claims about tools, reasoning and structured output in ``/v1/messages`` and ``/v1/responses``, by their clients.

The model repeats what the user said, so what the user writes as a call or as reasoning is one of the answer.
"""

from __future__ import annotations

import json
from itertools import pairwise

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_serving.api.answer_segments import Segments
from fulmen_serving.engine.engine import TextDelta
from fulmen_serving.parsing.parts import ReasoningDelta, ToolCallDelta

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ürümqi", "days": ["a", {}]}}\n</tool_call>'
BOTH = f"I look.\n{CALL}\n{CALL.replace('Ürümqi', 'Oslo')}"
ANTHROPIC_TOOLS = [{"name": "weather", "description": "Tells the weather", "input_schema": SCHEMA}]
OPENAI_TOOLS = [{"type": "function", "name": "weather", "description": "Tells it", "parameters": SCHEMA}]


@pytest.fixture(scope="module")
def server(kit):
    runner = kit.runner(context=2048, budget=512)
    with kit.service(runner, kit.WordGuard()) as service, kit.server(service) as url:
        yield url, service


@pytest.fixture(scope="module")
def messages(server):
    with anthropic.Anthropic(base_url=server[0], api_key="none", max_retries=0, timeout=30) as client:
        yield lambda text, **fields: client.messages.create(
            **{"model": "parrot", "max_tokens": 400, "messages": [{"role": "user", "content": text}]} | fields
        )


@pytest.fixture(scope="module")
def streamed(server):
    """The final message that Anthropic's client makes of a stream."""

    def ask(text, **fields):
        with anthropic.Anthropic(base_url=server[0], api_key="none", max_retries=0, timeout=30) as client:
            said = [{"role": "user", "content": text}]
            with client.messages.stream(**{"model": "parrot", "max_tokens": 400, "messages": said} | fields) as stream:
                return stream.get_final_message()

    return ask


@pytest.fixture(scope="module")
def responses(server):
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield lambda given, **fields: client.responses.create(**{"model": "parrot", "input": given} | fields)


def blocks(message):
    return [
        (block.type, block.text) if block.type == "text" else (block.type, block.name, block.input)
        for block in message.content
    ]


def test_a_message_that_calls_has_its_text_and_its_calls_in_order_streamed_or_not(messages, streamed):
    whole, piecewise = messages(BOTH, tools=ANTHROPIC_TOOLS), streamed(BOTH, tools=ANTHROPIC_TOOLS)
    expected = [
        ("text", "I look."),
        ("tool_use", "weather", {"city": "Ürümqi", "days": ["a", {}]}),
        ("tool_use", "weather", {"city": "Oslo", "days": ["a", {}]}),
    ]
    assert blocks(whole) == blocks(piecewise) == expected
    assert whole.stop_reason == piecewise.stop_reason == "tool_use"
    assert len({block.id for block in whole.content[1:]}) == 2


def test_a_message_takes_the_result_of_its_calls(messages, server):
    first = messages(BOTH, tools=ANTHROPIC_TOOLS)
    results = [
        {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "sunny"},
        {"type": "tool_result", "tool_use_id": first.content[2].id, "is_error": True, "content": [text("no city")]},
        text("And now?"),
    ]
    history = [{"role": "user", "content": "hi"}, first.to_param(), {"role": "user", "content": results}]
    again = messages("", messages=history, tools=ANTHROPIC_TOOLS)
    assert again.content[0].text == "And now?"
    seen = server[1].engine.core.runner.prompts[-1]
    assert "\ntool\nsunny\n" in seen
    assert "\ntool\nError: no city\n" in seen
    assert '"city": "Ürümqi"' in seen
    assert "Tells the weather" in seen


def text(said):
    return {"type": "text", "text": said}


def test_tools_that_may_not_be_called_are_neither_shown_nor_parsed(messages, responses, server):
    answer = messages(CALL, tools=ANTHROPIC_TOOLS, tool_choice={"type": "none"})
    assert blocks(answer) == [("text", CALL)]
    response = responses(CALL, tools=OPENAI_TOOLS, tool_choice="none")
    assert response.output_text == CALL
    assert "Tells" not in "".join(server[1].engine.core.runner.prompts[-2:])


def test_tokens_are_counted_with_the_tools(server, messages):
    with anthropic.Anthropic(base_url=server[0], api_key="none", max_retries=0) as client:
        said = [{"role": "user", "content": "hi"}]
        plain = client.messages.count_tokens(model="parrot", messages=said).input_tokens
        counted = client.messages.count_tokens(model="parrot", messages=said, tools=ANTHROPIC_TOOLS).input_tokens
    usage = messages("hi", tools=ANTHROPIC_TOOLS).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens > plain


def items(response):
    return [
        (item.type, item.content[0].text) if item.type == "message" else (item.type, item.name, item.arguments)
        for item in response.output
    ]


def test_a_response_that_calls_has_its_items_in_order_streamed_or_not(responses):
    whole = responses(BOTH, tools=OPENAI_TOOLS)
    events = list(responses(BOTH, tools=OPENAI_TOOLS, stream=True))
    arguments = '{"city": "Ürümqi", "days": ["a", {}]}'
    expected = [
        ("message", "I look."),
        ("function_call", "weather", arguments),
        ("function_call", "weather", arguments.replace("Ürümqi", "Oslo")),
    ]
    assert items(whole) == items(events[-1].response) == expected
    assert whole.status == events[-1].response.status == "completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.item for event in events if event.type == "response.output_item.done"] == events[-1].response.output
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    for event, item in zip(done, events[-1].response.output[1:], strict=True):
        mine = [e for e in events if e.type == "response.function_call_arguments.delta" and e.item_id == item.id]
        pieces = [e.delta for e in mine]
        assert "".join(pieces) == event.arguments == item.arguments
        assert len(pieces) > 3
    assert whole.tools[0].name == "weather"


def test_a_response_takes_the_output_of_its_calls(responses, server):
    first = responses(CALL, tools=OPENAI_TOOLS)
    outputs = [{"type": "function_call_output", "call_id": item.call_id, "output": "sunny"} for item in first.output]
    history = [{"role": "user", "content": "hi"}, *first.output, *outputs, {"role": "user", "content": "And now?"}]
    assert responses(history, tools=OPENAI_TOOLS).output_text == "And now?"
    plain = [item if isinstance(item, dict) else item.model_dump() for item in history]
    assert responses(plain, tools=OPENAI_TOOLS).output_text == "And now?"
    seen = server[1].engine.core.runner.prompts[-1]
    assert "\ntool\nsunny\n" in seen
    assert '"city": "Ürümqi"' in seen


def test_reasoning_is_a_block_or_an_item_of_its_own_and_can_be_sent_back(kit):
    said = "<think>\nhm, \n2 and 2\n</think>\n\nfour"
    with kit.service(kit.runner(context=1024), reasoning=True) as service, kit.server(service) as url:
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
            asked = {"model": "parrot", "max_tokens": 200, "messages": [{"role": "user", "content": said}]}
            whole = client.messages.create(**asked)
            with client.messages.stream(**asked) as stream:
                assert [block.type for block in stream.get_final_message().content] == ["thinking", "text"]
                assert stream.get_final_message().content[0].thinking == "hm, \n2 and 2"
            assert (whole.content[0].thinking, whole.content[1].text) == ("hm, \n2 and 2", "four")
            history = [*asked["messages"], whole.to_param(), {"role": "user", "content": "b"}]
            assert client.messages.create(**asked | {"messages": history}).content[0].text == "b"
            assert "<think>\nhm, \n2 and 2\n</think>" in service.engine.core.runner.prompts[-1]
            with pytest.raises(anthropic.BadRequestError, match="cannot be disabled"):
                client.messages.create(**asked, thinking={"type": "disabled"})
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client:
            whole = client.responses.create(model="parrot", input=said)
            assert [item.type for item in whole.output] == ["reasoning", "message"]
            assert whole.output[0].content[0].text == "hm, \n2 and 2"
            assert whole.output_text == "four"
            assert whole.usage.output_tokens_details.reasoning_tokens > 0
            events = list(client.responses.create(model="parrot", input=said, stream=True))
            pieces = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
            assert "".join(pieces) == "hm, \n2 and 2"
            history = [{"role": "user", "content": said}, *whole.output, {"role": "user", "content": "b"}]
            assert client.responses.create(model="parrot", input=history).output_text == "b"
            assert "<think>\nhm, \n2 and 2\n</think>" in service.engine.core.runner.prompts[-1]


def test_a_call_that_is_cut_off_is_given_as_far_as_it_goes(messages, streamed, responses, kit):
    limit = len(kit.tokenizer.encode(CALL[:70]))
    whole, piecewise = (ask(CALL, tools=ANTHROPIC_TOOLS, max_tokens=limit) for ask in (messages, streamed))
    assert whole.stop_reason == piecewise.stop_reason == "max_tokens"
    assert whole.content[0].input == piecewise.content[0].input
    assert whole.content[0].input["city"].startswith("Ü")
    cut = responses(CALL, tools=OPENAI_TOOLS, max_output_tokens=limit)
    assert (cut.status, cut.output[0].status) == ("incomplete", "incomplete")
    assert cut.output[0].arguments.startswith('{"city": "Ü')


@pytest.mark.parametrize("name", ["messages", "responses"])
def test_a_required_call_and_a_schema_bind_a_random_model(kit, name):
    shape = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    closed = shape | {"additionalProperties": False}
    with kit.service(kit.runner(parrot=False, context=2048, budget=512)) as service, kit.server(service) as url:
        if name == "messages":
            tool = {"name": "decide", "input_schema": closed, "strict": True}
            with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=30) as client:
                asked = {"model": "parrot", "max_tokens": 500, "messages": [{"role": "user", "content": "go"}]}
                called = client.messages.create(**asked, tools=[tool], tool_choice={"type": "tool", "name": "decide"})
                form = {"format": {"type": "json_schema", "schema": closed}}
                bound = client.messages.create(**asked, extra_body={"output_config": form})
            [block] = called.content
            arguments, said = block.input, bound.content[0].text
            assert called.stop_reason == "tool_use"
        else:
            tool = {"type": "function", "name": "decide", "parameters": closed, "strict": True}
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
                asked = {"model": "parrot", "input": "go", "max_output_tokens": 500}
                must = {"tool_choice": "required", "parallel_tool_calls": False}
                called = client.responses.create(**asked, tools=[tool], **must)
                form = {"format": {"type": "json_schema", "name": "it", "schema": closed, "strict": True}}
                bound = client.responses.create(**asked, text=form)
            [item] = called.output
            arguments, said = json.loads(item.arguments), bound.output_text
            assert bound.text.format.type == "json_schema"
    assert arguments in ({"ok": True}, {"ok": False})
    assert json.loads(said) in ({"ok": True}, {"ok": False})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'web_search_20250305'; only 'custom'"),
        ({"tools": ANTHROPIC_TOOLS * 2}, "two functions 'weather'"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, r"tools\[0\].name"),
        ({"tools": [{"name": "f", "input_shema": {}}]}, r"tools\[0\].input_shema; did you mean 'input_schema'"),
        ({"tool_choice": {"type": "any"}}, "no 'tools' to choose from"),
        ({"tools": ANTHROPIC_TOOLS, "tool_choice": {"type": "tool", "name": "f"}}, "no function 'f'"),
        ({"tools": ANTHROPIC_TOOLS, "tool_choice": {"type": "tool"}}, "belongs to the type 'tool'"),
        ({"tools": ANTHROPIC_TOOLS, "tool_choice": {"type": "auto", "name": "weather"}}, "belongs to the type 'tool'"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "objekt"}}}}, "config.format.schema"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, "no block before"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]}]},
            "belongs to the role 'assistant'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "txt": "y"}]}]},
            r"messages\[0\].content\[0\].txt; did you mean 'text'",
        ),
    ],
)
def test_what_a_message_says_wrong_of_tools_is_refused_by_name(messages, fields, words):
    with pytest.raises(anthropic.BadRequestError, match=words):
        messages("hi", extra_body=fields)


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "'web_search'; only 'function'", "tools"),
        ({"tools": OPENAI_TOOLS * 2}, "two functions 'weather'", "tools[1].name"),
        ({"tool_choice": "required"}, "no 'tools' to choose from", "tool_choice"),
        ({"tools": OPENAI_TOOLS, "tool_choice": {"type": "function", "name": "f"}}, "no function 'f'", "tool_choice"),
        ({"tools": OPENAI_TOOLS, "tool_choice": {"type": "file_search"}}, "tool_choice", "tool_choice.type"),
        ({"tools": OPENAI_TOOLS, "tool_choice": "any"}, "tool_choice", "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "belongs to", "text.format.schema"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "text.verbosity"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
            "no item before has a call 'x'",
            "input[0].call_id",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "x", "name": "f", "argument": "y"}]},
            "did you mean 'arguments'",
            "input[0].argument",
        ),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "None", "input[0].encrypted_content"),
    ],
)
def test_what_a_response_says_wrong_of_tools_is_refused_by_name(responses, fields, words, param):
    with pytest.raises(openai.BadRequestError) as refused:
        responses("hi", extra_body=fields)
    assert words in str(refused.value)
    assert refused.value.param == param


PIECES = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=3).map(TextDelta),
        st.text(min_size=1, max_size=3).map(ReasoningDelta),
        st.builds(ToolCallDelta, st.just(0), st.just("f"), st.text(max_size=3)),
        st.builds(ToolCallDelta, st.just(0), st.none(), st.text(min_size=1, max_size=3)),
    ),
    max_size=12,
)


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_segments_open_grow_and_close_in_order_and_lose_nothing(parts):
    segments = Segments()
    changes = [change for part in parts for change in segments.take(part)] + list(segments.finish())
    opened = [segment.index for what, segment, _ in changes if what == "opened"]
    assert opened == [segment.index for what, segment, _ in changes if what == "closed"] == list(range(len(opened)))
    for segment in segments.all:
        mine = [(what, piece) for what, other, piece in changes if other is segment]
        assert [what for what, _ in mine] == ["opened", *["grew"] * (len(mine) - 2), "closed"]
        assert "".join(piece for _, piece in mine) == segment.text
    said = "".join(part.text if not isinstance(part, ToolCallDelta) else part.arguments for part in parts)
    assert "".join(segment.text for segment in segments.all) == said
    assert all(one.kind != two.kind or two.kind == "call" for one, two in pairwise(segments.all))
