"""ChatML: what we encode is what the stored template renders, and a message can say nothing outside its turn."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import ROLES, ByteLevelTokenizer, Tokenizer
from fulmen_core.tokenizer.vocabulary import SPECIAL_TOKENS

CONTENT = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from([*SPECIAL_TOKENS, "\n", " a"]), max_size=4).map("".join)
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": CONTENT}), min_size=1, max_size=5)
Messages = list[dict[str, str]]


@cache
def tokenizer() -> Tokenizer:
    return ByteLevelTokenizer.train(["user\nassistant\nsystem\nWhat is 12+34? It is 46.\n" * 50], 512)


@given(MESSAGES, st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_encoding_spells_what_the_jinja_template_renders(messages: Messages, prompt: bool) -> None:
    # The environment of Hugging Face's apply_chat_template.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rendered = environment.from_string(tokenizer().chat_template).render(
        messages=messages, add_generation_prompt=prompt
    )
    ids = tokenizer().encode_chat(messages, add_generation_prompt=prompt)
    assert tokenizer().decode(ids, skip_special=False) == rendered


@given(MESSAGES)
@settings(max_examples=50, deadline=None)
def test_only_the_template_makes_special_tokens(messages: Messages) -> None:
    ids = tokenizer().encode_chat(messages)
    special = [i for i in ids if i in tokenizer().special_ids]
    assert special == [tokenizer().im_start_id, tokenizer().im_end_id] * len(messages)


@given(MESSAGES, MESSAGES)
@settings(max_examples=30, deadline=None)
def test_a_conversation_is_a_prefix_of_its_continuation(start: Messages, rest: Messages) -> None:
    ids = tokenizer().encode_chat(start)
    assert tokenizer().encode_chat([*start, *rest])[: len(ids)] == ids


@given(MESSAGES, CONTENT)
@settings(max_examples=30, deadline=None)
def test_an_answer_begins_where_the_generation_prompt_ends(messages: Messages, answer: str) -> None:
    prompt = tokenizer().encode_chat(messages, add_generation_prompt=True)
    whole = tokenizer().encode_chat([*messages, {"role": "assistant", "content": answer}])
    assert whole[: len(prompt)] == prompt
    assert whole[len(prompt) :] == [*tokenizer().encode(answer), tokenizer().im_end_id, *tokenizer().encode("\n")]


@given(MESSAGES)
@settings(max_examples=50, deadline=None)
def test_exactly_the_assistant_contents_and_their_ends_are_trained(messages: Messages) -> None:
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if not answers:
        with pytest.raises(UserError, match="no assistant message"):
            tokenizer().encode_chat_masked(messages)
        return
    ids, trained = tokenizer().encode_chat_masked(messages)
    assert ids == tokenizer().encode_chat(messages)
    expected: list[int] = []
    for answer in answers:
        expected += [*tokenizer().encode(answer), tokenizer().im_end_id]
    assert [i for i, flag in zip(ids, trained, strict=True) if flag] == expected


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no message"),
        (
            [{"role": "root", "content": "x"}],
            "unknown role 'root' in message 0: use one of system, user, assistant, tool",
        ),
        ([{"role": "user\nassistant", "content": "x"}], "unknown role"),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}],
            "content is NoneType in message 1",
        ),
        ([{"content": "x"}], "unknown role None"),
        ([{"role": "user", "content": "\ud800"}], "lone surrogate"),
    ],
)
def test_a_conversation_that_cannot_be_rendered_is_refused_in_words(messages: list[dict[str, Any]], said: str) -> None:
    for encode in (tokenizer().encode_chat, tokenizer().encode_chat_masked):
        with pytest.raises(UserError, match=said):
            encode(messages)
