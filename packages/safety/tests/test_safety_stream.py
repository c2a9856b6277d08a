from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_safety import Finding
from fulmen_safety.guard import RaiseGuard

PIECES = [
    *(
        "Ada Lovelace",
        "Ada",
        "A",
        "d",
        "a",
        " Love",
        "王小明",
        "王",
        "小",
        "x7",
        "x",
        "7",
        "grumble goose",
        "goose egg",
    ),
    *("grumble", " goose", "red mercury", "red  mercury", "红汞", "nine pills", " ", ". ", "，", "\n", "I a m ", "e"),
    *(
        "A d a",
        "r e d   m e r c u r y",
        "Ａｄａ",
        "A\u200bd\u200ba",
        "Аdа",
        "x-7",
        "х７",
        "\u200b",
        "ﬁ",
        "é",
        "\U000e0041",
    ),
    *("\\u0041", "&#65;", "%41", "da", "\\", "%", "&#", "A-d", "-a", "r e d m e r c u r y", "g r u m", " b l e - "),
]
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def deliver(guard: RaiseGuard, chunks: Iterable[str]) -> tuple[list[str], bool]:
    """Stream `chunks`; return every piece that was delivered, and whether the stream was stopped."""
    stream = guard.open_output([])
    delivered = []
    for chunk in chunks:
        out = stream.feed(chunk)
        delivered.append(out.text)
        if out.stop:
            return delivered, True
    out = stream.finish()
    return [*delivered, out.text], out.stop


def cut(text: str, places: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in itertools.pairwise([0, *sorted(places), len(text)])]


@settings(max_examples=50, deadline=None)
@given(ANSWERS, st.data())
def test_a_streamed_answer_equals_the_answer_judged_at_once(
    guard: RaiseGuard, answer: str, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(answer)), max_size=12))
    delivered, stopped = deliver(guard, cut(answer, places))
    whole = guard.judge_output([], answer)
    assert "".join(delivered) == whole.text
    assert stopped == (whole.action in ("replace", "stop"))


@settings(max_examples=50, deadline=None)
@given(ANSWERS)
def test_no_character_leaves_before_it_is_certain(guard: RaiseGuard, answer: str) -> None:
    whole = guard.judge_output([], answer).text
    sent = ""
    for piece in deliver(guard, answer)[0]:
        sent += piece
        assert whole.startswith(sent)


@pytest.mark.parametrize(
    "answer", ["an Ada, x7", "A d a x7.", "x7红汞 Ada", "so x７ Ａda", r"\u0041da.", "&#65;da,", "x%37 是A-d\na"]
)
def test_every_one_of_all_cuttings_gives_the_same(guard: RaiseGuard, answer: str) -> None:
    whole = guard.judge_output([], answer).text
    inner = range(1, len(answer))
    for count in range(len(answer)):
        for places in itertools.combinations(inner, count):
            assert "".join(deliver(guard, cut(answer, places))[0]) == whole


def test_plain_prose_flows_word_by_word(guard: RaiseGuard) -> None:
    stream = guard.open_output([])
    words = ["The ", "weather ", "is ", "fine, ", "and ", "nobody ", "minds."]
    assert [stream.feed(word).text for word in words] == words


def test_chinese_prose_flows_character_by_character(guard: RaiseGuard) -> None:
    stream = guard.open_output([])
    text = "今天天气很好我们去公园"
    assert [stream.feed(char).text for char in text] == list(text)


def test_nothing_follows_a_stop(guard: RaiseGuard) -> None:
    stream = guard.open_output([])
    assert stream.feed("First, red mercury, ").text == "First, "
    assert stream.feed("then more.").text == ""
    last = stream.finish()
    assert (last.text, last.stop, last.category) == ("", True, "weapons_cbrne")


def test_replaced_text_says_so_in_the_language_of_the_question(guard: RaiseGuard) -> None:
    for asked, said in (("hello", "Let us stay kind."), ("你好", "请友善。")):
        stream = guard.open_output([{"role": "user", "content": asked}])
        out = stream.feed("He is a grumble goose. ")
        assert (out.text, out.stop) == ("He is a " + said, True)


def test_findings_are_told_with_offsets_into_the_whole_answer(guard: RaiseGuard) -> None:
    answer = "word " * 40 + "Ada and 王小明 met. " + "word " * 40 + "Ａｄａ."
    stream = guard.open_output([])
    told: list[Finding] = []
    for char in answer:
        told += stream.feed(char).findings
    told += stream.finish().findings
    assert [answer[one.start : one.end] for one in told] == ["Ada", "王小明", "Ａｄａ"]


def test_a_stream_forgets_what_it_has_delivered(guard: RaiseGuard) -> None:
    stream = guard.open_output([])
    for _ in range(500):
        stream.feed("word word word word ")
        assert len(stream._text) < 100


def test_characters_that_nobody_sees_are_forgotten_too(guard: RaiseGuard) -> None:
    stream = guard.open_output([])
    stream.feed("so ")
    for _ in range(500):
        stream.feed("\u200b\u200d\ufeff\u00ad")
        assert len(stream._text) < 100
    assert stream.feed("Ada, ").text == "[NAME], "


class SecondThoughts:
    """Judges whole answers only: an answer that ends in "..." was not meant."""

    name = "probe"

    def scan(self, text: str) -> list[Finding]:
        return [Finding("probe", "privacy_pii", 1.0, 0, len(text), "retracted")] if text.endswith("...") else []


def test_a_detector_that_cannot_stream_holds_the_whole_answer(guard_with: Callable[..., RaiseGuard]) -> None:
    guard = guard_with(SecondThoughts())
    assert deliver(guard, ["I think ", "so"]) == (["", "", "I think so"], False)
    assert "".join(deliver(guard, ["I think ", "so..."])[0]) == "[RETRACTED]"


class Misbehaves:
    """Streams, until it sees a word on which it does what the test asks of it."""

    name = "probe"
    look_behind = 0

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def scan(self, text: str) -> list[Finding]:
        return self._act() if "trigger" in text else []

    def hold_from(self, text: str) -> int:
        return len(text)


def _raise() -> None:
    raise RuntimeError("boom")


def _lie() -> list[Finding]:
    return [Finding("probe", "privacy_pii", 1.0, 5, 99_999)]


def _undeclared() -> list[Finding]:
    return [Finding("probe", "self_harm", 1.0, 0, 1)]


@pytest.mark.parametrize("act", [_raise, _lie, _undeclared])
def test_a_detector_that_fails_ends_the_answer(guard_with: Callable[..., RaiseGuard], act: Callable[[], Any]) -> None:
    guard = guard_with(Misbehaves(act))
    delivered, stopped = deliver(guard, ["fine so far ", "trigger ", "more"])
    assert (delivered, stopped) == (["fine so far ", "cannot check"], True)


def test_a_detector_that_may_fail_open_is_left_out_and_the_others_go_on(guard_with: Callable[..., RaiseGuard]) -> None:
    guard = guard_with(Misbehaves(_raise), entry={"on_error": "open"})
    delivered, stopped = deliver(guard, ["fine ", "trigger ", "Ada "])
    assert ("".join(delivered), stopped) == ("fine trigger [NAME] ", False)
