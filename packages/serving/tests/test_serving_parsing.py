"""Claims about reasoning and calls of tools in the text of answers: the same parts however the text was cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fulmen_core.tokenizer.tool_text import call_text
from fulmen_serving.parsing.answer_parser import AnswerFormat, AnswerParser
from fulmen_serving.parsing.parts import ReasoningDelta, SaidDelta, ToolCall, ToolCallDelta, whole

FORMATS = [
    AnswerFormat(reasoning, inside, tools)
    for reasoning, inside in ((False, False), (True, False), (True, True))
    for tools in (False, True)
]
FRAGMENTS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "f", "arguments": {"a": 1}}',
    '{"name": "f", "arguments": ',
    '{"arguments": {"a": "}"}, "name": "g"}',
    '{"a": "\\"}<\\\\", "b": [{}]}',
    "{",
    "}",
    '"',
    "\\",
    "<",
    "</t",
    "<tool",
    "\n",
    " ",
    "x",
    "é中",
]
TEXTS = st.one_of(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join), st.text(max_size=30))


def parse(form: AnswerFormat, pieces: list[str]) -> list:
    parser = AnswerParser(form)
    return [part for piece in pieces for part in parser.push(piece)] + list(parser.finish())


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({place % (len(text) + 1) for place in cuts})
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FORMATS), TEXTS, st.lists(st.integers(0, 500), max_size=12))
@example(AnswerFormat(tools=True), '<tool_call>{"name": "a</tool_call>b", "arguments": {"x": 1}}', [25, 30, 40])
def test_parts_do_not_depend_on_how_the_text_is_cut(form, text, cuts):
    assert whole(parse(form, cut(text, cuts))) == whole(parse(form, [text]))
    assert whole(parse(form, list(text))) == whole(parse(form, [text]))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 500), max_size=6))
def test_without_reasoning_and_tools_the_text_is_what_is_said(text, cuts):
    assert whole(parse(AnswerFormat(), cut(text, cuts))).said == text


@settings(max_examples=200, deadline=None)
@given(TEXTS.filter(lambda text: "</think>" not in text), st.text(max_size=20), st.booleans())
def test_reasoning_is_told_from_the_answer(thought, said, inside):
    form = AnswerFormat(reasoning=True, starts_inside=inside)
    answer = whole(parse(form, list(f"{'' if inside else '<think>'}\n{thought}\n</think>\n\n{said}")))
    assert answer.reasoning == thought.strip()
    assert answer.said == said.lstrip()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
            st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.text(max_size=8), st.lists), max_size=4),
        ),
        max_size=3,
    ),
    st.text(max_size=20).filter(lambda text: "<tool_call>" not in text),
)
def test_calls_that_the_prompt_teaches_are_read_back(calls, said):
    text = said + "".join(f"\n{call_text(name, json.dumps(arguments))}" for name, arguments in calls)
    answer = whole(parse(AnswerFormat(tools=True), list(text)))
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == calls
    assert answer.said == (said.rstrip() if calls else said)


def test_what_is_said_around_a_call_never_runs_together():
    call = call_text("f", "{}")
    text = f"Dial 138{call}00138000 {call}\n{call} now{call}"
    assert whole(parse(AnswerFormat(tools=True), list(text))).said == "Dial 138\n00138000\nnow"


def test_arguments_are_given_while_they_are_written():
    parser = AnswerParser(AnswerFormat(tools=True))
    parts = [
        list(parser.push(piece)) for piece in ('Ok.\n<tool_call>\n{"name": "f", "argu', 'ments": {"a', '": 1', "}}\n")
    ]
    assert parts == [
        [SaidDelta("Ok.")],
        [ToolCallDelta(0, "f"), ToolCallDelta(0, None, '{"a')],
        [ToolCallDelta(0, None, '": 1')],
        [ToolCallDelta(0, None, "}")],
    ]


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", [ToolCall("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f"}</tool_call>', "", [ToolCall("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [ToolCall("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}', "", [ToolCall("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1', "", [ToolCall("f", '{"a": 1')]),
        ("<tool_call>call f</tool_call> now", "<tool_call>call f</tool_call> now", []),
        ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
        ("say <tool_call>{", "say<tool_call>{", []),
        ("a < b <tool", "a < b <tool", []),
    ],
)
def test_calls_in_other_forms_are_read_and_what_is_none_stays_text(text, said, calls):
    answer = whole(parse(AnswerFormat(tools=True), [text]))
    assert (answer.said, answer.calls) == (said, calls)


def test_reasoning_that_never_ends_is_no_answer():
    parts = parse(AnswerFormat(reasoning=True), ["<think>so", " far "])
    assert parts == [ReasoningDelta("so"), ReasoningDelta(" far")]
