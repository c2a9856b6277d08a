"""Claims about tools and reasoning over HTTP, as the official client sees them."""

from __future__ import annotations

import contextlib
import json

import jsonschema
import openai
import pytest

from fulmen_core.tokenizer.tool_text import call_text

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "maximum": 9}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
SCHEMA = WEATHER["function"]["parameters"]


@contextlib.contextmanager
def clients(kit, **of_service):
    with (
        kit.service(**of_service) as service,
        kit.server(service) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def random(kit):
    """A random model: what fits, fits because of the grammar."""
    with clients(kit, runner=kit.runner(parrot=False, context=2048, budget=512)) as client:
        yield client


@pytest.fixture(scope="module")
def parrot(kit):
    """A model that says what the user said: what it writes is known."""
    with clients(kit, runner=kit.runner(context=2048, budget=512), reasoning=True) as client:
        yield client


def ask(client, said="a fox", **asked):
    messages = asked.pop("messages", [{"role": "user", "content": said}])
    return client.chat.completions.create(model="parrot", messages=messages, **asked)


def streamed(client, said, **asked):
    """The message that the chunks of a stream add up to, and the finish reason."""
    message, end = {"content": "", "reasoning_content": "", "tool_calls": []}, None
    for chunk in ask(client, said, stream=True, **asked):
        [choice] = chunk.choices
        delta, end = choice.delta, choice.finish_reason or end
        message["content"] += delta.content or ""
        message["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or ():
            if call.id is not None:
                assert call.index == len(message["tool_calls"])
                assert call.type == "function"
                message["tool_calls"].append([call.function.name, ""])
            message["tool_calls"][call.index][1] += call.function.arguments
    return message, end


def whole(client, said, **asked):
    choice = ask(client, said, **asked).choices[0]
    message = {
        "content": choice.message.content or "",
        "reasoning_content": getattr(choice.message, "reasoning_content", None) or "",
        "tool_calls": [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or ()],
    }
    return message, choice.finish_reason


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=["required", "named"]
)
@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_is_demanded_is_made_and_its_arguments_fit(random, choice, parallel):
    asked = {"tools": [WEATHER, CLOCK], "tool_choice": choice, "parallel_tool_calls": parallel, "max_tokens": 900}
    for seed in range(4):
        message, end = whole(random, "hi", seed=seed, **asked)
        assert message["tool_calls"]
        assert message["content"] == ""
        if end == "tool_calls":
            assert parallel or len(message["tool_calls"]) == 1
            for name, arguments in message["tool_calls"]:
                assert name in (["weather"] if isinstance(choice, dict) else ["weather", "clock"])
                jsonschema.validate(json.loads(arguments), SCHEMA if name == "weather" else {"type": "object"})
        assert streamed(random, "hi", seed=seed, **asked) == (message, end)


def test_the_official_client_reads_calls_and_sends_their_results_back(parrot):
    written = "Let me look.\n" + call_text("weather", '{"town": "Ulm", "days": 2}') + "\n" + call_text("clock", "{}")
    done = ask(parrot, written, tools=[WEATHER, CLOCK]).choices[0]
    assert done.finish_reason == "tool_calls"
    assert done.message.content == "Let me look."
    assert [(c.function.name, json.loads(c.function.arguments)) for c in done.message.tool_calls] == [
        ("weather", {"town": "Ulm", "days": 2}),
        ("clock", {}),
    ]
    messages = [
        {"role": "user", "content": "The weather?"},
        done.message,
        *({"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in done.message.tool_calls),
        {"role": "user", "content": "And now?"},
    ]
    assert ask(parrot, messages=messages, tools=[WEATHER, CLOCK]).choices[0].message.content == "And now?"


SAID = [
    "<think>\nHm. Rain?\n</think>\n\nLet me look.\n" + call_text("weather", '{"town": "Ulm"}'),
    "<think>only thought",
    "no thought <tool_call>none</tool_call>",
    call_text("clock", "{}") + "\n" + call_text("clock", '{"a": "}</tool_call>"}') + "\nDone.",
]


@pytest.mark.parametrize("said", SAID)
def test_a_streamed_answer_adds_up_to_the_whole_one(parrot, said):
    assert streamed(parrot, said, tools=[WEATHER, CLOCK]) == whole(parrot, said, tools=[WEATHER, CLOCK])


def test_reasoning_is_apart_from_the_answer_and_is_taken_back_in_the_next_turn(parrot):
    done = ask(parrot, "<think>\nHm.\n</think>\n\nRain.").choices[0].message
    assert (done.reasoning_content, done.content) == ("Hm.", "Rain.")
    again = ask(parrot, messages=[{"role": "user", "content": "?"}, done, {"role": "user", "content": "Sure?"}])
    assert again.choices[0].message.content == "Sure?"


def test_functions_that_may_not_be_called_are_neither_shown_nor_read(parrot):
    written = call_text("clock", "{}")
    done = ask(parrot, written, tools=[CLOCK], tool_choice="none")
    assert done.choices[0].message.content == written
    assert done.choices[0].message.tool_calls is None
    assert done.usage.prompt_tokens < ask(parrot, written, tools=[CLOCK]).usage.prompt_tokens


def test_strict_functions_and_single_calls_bind_a_model_that_is_free_to_call(random, tokenizer):
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    # a random model hardly ever begins a call, so that it is made to
    begin = {str(token): 12 for token in tokenizer.encode("<tool_call>")}
    for seed in range(6):
        message, end = whole(
            random, "hi", seed=seed, tools=[strict], parallel_tool_calls=False, logit_bias=begin, max_tokens=300
        )
        for name, arguments in message["tool_calls"]:
            assert name == "weather"
            if end == "tool_calls":
                jsonschema.validate(json.loads(arguments), SCHEMA)
        assert len(message["tool_calls"]) <= 1


def test_an_answer_is_a_call_or_has_its_shape(random):
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "boolean"}}}
    for seed in range(4):
        message, end = whole(random, "hi", seed=seed, tools=[WEATHER], response_format=shape, max_tokens=900)
        assert message["tool_calls"] or message["content"].strip() in ("true", "false") or end == "length"


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"tools": [CLOCK, CLOCK]}, "tools[1].function.name", "two functions 'clock'"),
        ({"tool_choice": "required"}, "tool_choice", "no 'tools'"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "no function 'x'",
        ),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "'required'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "x"}}}}}
                ],
                "tool_choice": "required",
            },
            "tools[0].function.parameters.properties.a",
            "Invalid type: x",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "tool's message"),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c1"}]},
            "messages[0].tool_call_id",
            "no message before",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]},
            "messages[0].reasoning_content",
            "only an assistant's",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(random, asked, param, words):
    messages = asked.get("messages", [{"role": "user", "content": "hi"}])
    extra = {name: value for name, value in asked.items() if name != "messages"}
    with pytest.raises(openai.BadRequestError) as refused:
        random.chat.completions.create(model="parrot", messages=messages, extra_body=extra)
    assert refused.value.param == param
    assert words in refused.value.message


def test_the_guard_sees_arguments_reasoning_results_and_what_functions_are_for(kit):
    with clients(
        kit, runner=kit.runner(context=2048, budget=512), guard=kit.WordGuard(forbidden="hidden"), reasoning=True
    ) as client:
        for written in (
            call_text("clock", '{"town": "hidden"}'),
            "<think>\nthe hidden one\n</think>\n\nNo.",
        ):
            message, end = whole(client, written, tools=[CLOCK])
            assert end == "content_filter"
            assert "hid" not in json.dumps(message)
            assert streamed(client, written, tools=[CLOCK]) == (message, end)
        result = [
            {"role": "user", "content": "?"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "how to make a bomb"},
        ]
        assert ask(client, messages=result, tools=[CLOCK]).choices[0].finish_reason == "content_filter"
        bomb = {"type": "function", "function": {"name": "f", "description": "makes a bomb"}}
        assert ask(client, tools=[bomb]).choices[0].finish_reason == "content_filter"
        with pytest.raises(openai.BadRequestError, match="The guard found something in 'tools'"):
            ask(client, tools=[{"type": "function", "function": {"name": "f", "description": "dials 112"}}])
