"""Claims about the way from tokens to delivered text: characters whole, stop strings cut, the guard last."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.stop_strings import StopStrings


def deliver(kit, text, *, stops=(), guard=None, reason="stop"):
    """Push the text token by token; return the pieces, the reason and the AnswerText."""
    stream = None if guard is None else guard.open_output([])
    answer = AnswerText(StreamDecoder(kit.tokenizer), StopStrings(stops), stream)
    pieces = []
    for token in kit.tokenizer.encode(text):
        delivery = answer.push(token)
        pieces.append(delivery.text)
        if delivery.end:
            return pieces, delivery.end, answer
    delivery = answer.finish(reason)
    return [*pieces, delivery.text], delivery.end, answer


@given(text=st.text(max_size=30))
@settings(deadline=None)
def test_streamed_text_joins_to_the_text_and_no_piece_has_half_a_character(kit, text):
    pieces, end, _ = deliver(kit, text)
    assert "".join(pieces) == text
    assert end == "stop"
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_the_reason_of_the_tokens_is_kept(kit, reason):
    assert deliver(kit, "abc", reason=reason)[1] == reason


def test_a_stop_string_that_the_last_held_back_character_completes_still_stops(kit):
    answer = AnswerText(StreamDecoder(kit.tokenizer), StopStrings(["x\ufffd"]), None)
    for token in kit.tokenizer.encode("x한")[:2]:  # "x" and the first byte of the character
        assert not answer.push(token).end
    delivery = answer.finish("length")
    assert (delivery.text, delivery.end) == ("", "stop")


def test_the_guard_sees_what_the_client_would_and_nothing_behind_a_stop_string(kit):
    pieces, end, answer = deliver(kit, "all is well END secret", stops=["END"], guard=kit.WordGuard())
    assert ("".join(pieces), end) == ("all is well ", "stop")
    assert answer.findings == []


@given(before=st.text("abs ecrt", max_size=20), after=st.text("abc", max_size=5))
@settings(deadline=None)
def test_nothing_of_a_forbidden_word_leaves(kit, before, after):
    text = f"{before}secret{after}"
    pieces, end, answer = deliver(kit, text, guard=kit.WordGuard())
    assert "".join(pieces) == text[: text.index("secret")]
    assert end == "content_filter"
    assert answer.category == "leak"
    assert [finding.category for finding in answer.findings] == ["leak"]


def test_an_innocent_beginning_is_delivered_at_the_end(kit):
    pieces, end, _ = deliver(kit, "a secre", guard=kit.WordGuard(), reason="length")
    assert ("".join(pieces), end) == ("a secre", "length")


def test_a_guard_that_raises_ends_the_answer_and_delivers_nothing_more(kit):
    pieces, end, answer = deliver(kit, "hello", guard=kit.WordGuard(fails="output"))
    assert ("".join(pieces), end, answer.category) == ("", "content_filter", "guard_failure")
