from __future__ import annotations

import hashlib
import json
import time
import timeit
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_raise_pii.names import DEFAULT_KINDS, NamesDetector, make
from fulmen_raise_pii.tagger.weights import FILE, load
from fulmen_safety import UserError
from fulmen_safety.conformance import faults
from fulmen_safety.detector import Redactor, StreamingDetector

EVERY_KIND = ["person", "address", "location", "organization", "date", "age", "title", "nationality", "phone"]


@pytest.fixture(scope="module")
def detector() -> NamesDetector:
    return make({"kinds": EVERY_KIND})


def found(detector: NamesDetector, text: str) -> set[tuple[str, str]]:
    return {(one.label, text[one.start : one.end]) for one in detector.scan(text) if one.score >= 0.5}


# Sentences of the tests' own: none is of the templates that the tagger was trained on.
@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("My name is Katarzyna Wojciechowska and I would like a refund.", "person", "Katarzyna Wojciechowska"),
        ("Please tell Miguel Fernández that the meeting was moved.", "person", "Miguel Fernández"),
        ("I spoke to Dr. Haraldsson yesterday.", "person", "Haraldsson"),
        ("I will be travelling to Portugal next week.", "location", "Portugal"),
        ("我叫王小明，今年三岁", "person", "王小明"),
        ("联系人：欧阳娜娜，地址见下", "person", "欧阳娜娜"),
        ("请转告李明华先生", "person", "李明华先生"),
    ],
)
def test_names_are_found_in_sentences_never_seen(detector: NamesDetector, text: str, kind: str, name: str) -> None:
    assert (kind, name) in found(detector, text)


@pytest.mark.parametrize(
    "text",
    [
        "The function returns a list of integers and raises an error if the file is missing.",
        "Use a for loop to iterate over the rows, then print the total.",
        "Water boils at a lower temperature on top of a mountain.",
        "今天天气很好，我们去公园散步。",
        "王者荣耀是一款游戏，高考成绩下周公布，白马非马。",
    ],
)
def test_prose_without_names_has_none(detector: NamesDetector, text: str) -> None:
    assert found(detector, text) == set()


def test_only_the_kinds_that_are_named_are_found_and_by_default_those_that_name_a_person_or_a_home() -> None:
    text = "My name is Katarzyna Wojciechowska and I will be travelling to Portugal."
    assert {kind for kind, _ in found(make({}), text)} == {"person"}
    assert {kind for kind, _ in found(make({"kinds": ["location"]}), text)} == {"location"}
    assert set(DEFAULT_KINDS) == {"person", "address", "driver_license", "phone"}


def test_listed_names_pass() -> None:
    detector = make({"allow": ["katarzyna wojciechowska"]})
    assert found(detector, "My name is Katarzyna Wojciechowska.") == set()


FRAGMENTS = st.one_of(
    st.sampled_from(
        ["My name is ", "Anna ", "Kowalska", "Dr. ", "12 ", "Baker Street", ", ", "\n", "\n\n", ". ", "London", " and "]
    ),
    st.sampled_from(
        ["王", "小明", "我叫", "先生", "，", "x", "9", " ", "the ", "of ", "Apt. 5", "x" * 21, " " * 9, "A" * 20]
    ),
)
DETECTOR = make({"kinds": EVERY_KIND})


@settings(max_examples=40, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12).map("".join))
def test_streaming_is_exact(text: str) -> None:
    assert faults(DETECTOR, text, categories=["privacy_pii"]) == []


def test_letters_of_two_scripts_are_never_one_long_word() -> None:
    text = "My name is Anna Kowalska李明华先生password"  # 21 letters in a row
    assert faults(DETECTOR, text, categories=["privacy_pii"]) == []
    assert ("person", "Anna Kowalska") in found(DETECTOR, text)


def test_an_island_longer_than_any_is_let_go_of_word_by_word() -> None:
    text = "My name is " + "Anna Kowalska " * 60
    findings = DETECTOR.scan(text)
    for cut in range(0, len(text), 37):
        hold = DETECTOR.hold_from(text[:cut])
        assert [one for one in DETECTOR.scan(text[:cut]) if one.start < hold] == [
            one for one in findings if one.start < hold
        ]


def test_a_stream_may_forget_what_lies_further_back_than_it_looks() -> None:
    text = ("Meet Anna Kowalska, 12 Baker Street, London. " * 3 + "and the rest of it is about nothing at all. ") * 40
    far = len(text) // 2
    whole = [one for one in DETECTOR.scan(text) if one.start >= far + DETECTOR.look_behind]
    part = [one.start + far for one in DETECTOR.scan(text[far:]) if one.start >= DETECTOR.look_behind]
    assert [one.start for one in whole] == part
    assert whole


def test_plain_words_are_held_for_three_more_and_chinese_not_at_all() -> None:
    assert DETECTOR.hold_from("The water boils at a lower temperature") == len("The water boils ")
    assert DETECTOR.hold_from("The water 今天天气") == len("The water 今天天气")


def test_the_detector_streams_and_redacts_for_itself(detector: NamesDetector) -> None:
    assert isinstance(detector, StreamingDetector)
    assert isinstance(detector, Redactor)
    finding = next(iter(detector.scan("My name is Katarzyna Wojciechowska.")))
    assert detector.replacement("Katarzyna Wojciechowska", finding) == "[PERSON]"


def test_time_grows_with_the_text_and_not_faster() -> None:
    def seconds(length: int) -> float:
        text = ("Anna Kowalska lives at 12 Baker Street. " * length)[:length]
        return min(timeit.repeat(lambda: DETECTOR.scan(text), timer=time.process_time, repeat=3, number=1))

    assert seconds(80_000) < 12 * max(seconds(20_000), 0.005)


def test_the_shipped_weights_are_those_of_their_card() -> None:
    folder = resources.files("fulmen_raise_pii") / "data"
    card = json.loads((folder / "tagger.card.json").read_text("utf-8"))
    assert hashlib.sha256((folder / FILE).read_bytes()).hexdigest() == card["sha256"]
    assert tuple(card["cross_validation"]["precision"].values()) == load().precision


@pytest.mark.parametrize(
    ("table", "told"), [({"kind": ["person"]}, "did you mean 'kinds'"), ({"kinds": ["name"]}, "kinds")]
)
def test_wrong_settings_are_told(table: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(table)
