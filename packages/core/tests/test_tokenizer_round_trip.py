"""The tokenizer loses nothing, keeps digits apart, and never takes text for markup."""

from __future__ import annotations

import argparse
import inspect
import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_core.tokenizer.vocabulary import IM_END, SPECIAL_TOKENS, filler_token

PIECES = [
    *SPECIAL_TOKENS,
    filler_token(0),
    filler_token(7),
    "<|im_",
    "end|>",
    "<|",
    "|>",
    "im_start",
    "\n    ",
    " ",
    "7",
]


@cache
def tokenizer() -> Tokenizer:
    source = inspect.getsource(argparse)
    return ByteLevelTokenizer.train([source, f"{IM_END} <|im_start|>assistant\n" * 500], 1024)


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_unicode_text_comes_back_unchanged(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text), skip_special=False) == text


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=12).map("".join))
@settings(max_examples=50, deadline=None)
def test_text_never_encodes_to_a_special_token(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().special_ids.isdisjoint(ids)
    assert tokenizer().decode(ids) == text


def test_a_corpus_full_of_markup_teaches_no_token_that_spells_markup() -> None:
    spelled = {tokenizer().token_bytes(i) for i in range(tokenizer().vocab_size) if i not in tokenizer().special_ids}
    assert spelled.isdisjoint(token.encode() for token in SPECIAL_TOKENS)
    assert len(tokenizer().encode(IM_END)) > 1


@given(st.text(st.sampled_from("0123456789٣५x .+-"), max_size=40))
@settings(max_examples=50, deadline=None)
def test_every_digit_is_a_token_of_its_own(text: str) -> None:
    for token_id in tokenizer().encode(text):
        token = tokenizer().token_bytes(token_id)
        shown = token.decode("utf-8", "replace")
        assert len(shown) == 1 or not any(unicodedata.category(character) == "Nd" for character in shown)


def test_a_line_break_with_the_indentation_after_it_costs_one_token() -> None:
    assert [tokenizer().token_bytes(i) for i in tokenizer().encode("x\n        y")] == [b"x", b"\n        ", b"y"]


def test_no_character_is_normalised_and_no_space_is_added() -> None:
    text = "ﬁ Ａ，é e\u0301 \u3000\u200b\ufeff\r\n\x00"
    assert tokenizer().decode(tokenizer().encode(text)) == text
    assert tokenizer().token_bytes(tokenizer().encode("word")[0])[:1] == b"w"


@given(st.lists(st.text(max_size=30), max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_batch_encodes_like_its_texts_one_by_one(texts: list[str]) -> None:
    assert tokenizer().encode_batch(texts) == [tokenizer().encode(text) for text in texts]


@given(before=st.text(max_size=10), surrogate=st.integers(0xD800, 0xDFFF), after=st.text(max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_lone_surrogate_is_refused_with_its_place(before: str, surrogate: int, after: str) -> None:
    with pytest.raises(UserError, match=f"U\\+{surrogate:04X} at character {len(before)}"):
        tokenizer().encode(before + chr(surrogate) + after)


@pytest.mark.parametrize("token_id", [-1, 1024, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(UserError, match="outside the vocabulary of 1024"):
        tokenizer().decode([token_id])


@pytest.mark.parametrize("unit", ["a", " ", "\n", "( ", "(\n", "é", "😀", "<|im_end|>"])
def test_a_long_run_of_anything_encodes_in_time_that_grows_with_its_length(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    assert tokenizer().decode(tokenizer().encode(text)) == text
