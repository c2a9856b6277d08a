from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_safety import UserError
from fulmen_safety.conformance import faults
from fulmen_safety.normalise import views
from fulmen_safety.terms import make


def found(text: str, *terms: str) -> list[str]:
    detector = make({"lists": [{"category": "privacy_pii", "terms": list(terms)}]})
    return sorted(text[one.start : one.end] for one in detector.scan(text))


def test_a_latin_term_stands_alone_and_its_case_does_not_count() -> None:
    assert found("The ass, ASS and classic assets.", "ass") == ["ASS", "ass"]


def test_a_term_glued_to_han_characters_is_found() -> None:
    assert found("请问Ada在吗", "ada") == ["Ada"]
    assert found("我叫王小明abc", "王小明") == ["王小明"]


def test_a_blank_stands_for_a_few() -> None:
    assert found("red   mercury and red      mercury", "red mercury") == ["red   mercury"]


@pytest.mark.parametrize("text", ["r e d m e r c u r y", "R-E-D-M-E-R-C-U-R-Y", "r.e.d m.e.r.c.u.r.y"])
def test_a_term_of_several_words_is_found_spelled_out(text: str) -> None:
    assert found(f"so {text}!", "red mercury") == [text]


@pytest.mark.parametrize("text", ["redmercury", "r e d mercury", "ar e d m e r c u r y", "r e d m e r c u r yes"])
def test_words_run_together_are_no_term(text: str) -> None:
    assert found(text, "red mercury") == []


def shown_to(term: str, written: str) -> bool:
    return any(found(view.text, term) for view in views(f"so {written}, yes"))


@pytest.mark.parametrize("term", ["紅汞", "журнал", "가나다", "が行く", "王小明"])
def test_a_term_in_any_script_is_found_where_it_is_disguised(term: str) -> None:
    assert shown_to(term, "\u200b".join(term))


@pytest.mark.parametrize("term", ["Müller", "가나다", "naïve café"])
def test_a_sign_and_its_accent_may_be_apart(term: str) -> None:
    assert shown_to(term, unicodedata.normalize("NFD", term))
    assert shown_to(unicodedata.normalize("NFD", term), term)


def test_a_word_that_only_lacks_an_accent_is_another_one() -> None:
    assert found("my resume", "résumé") == []


def test_two_letters_are_not_spelled_out() -> None:
    assert found("3-4, a.b", "3 4", "a b") == []


def test_the_longer_of_two_terms_wins_and_both_are_known() -> None:
    assert found("goose, goose egg", "goose", "goose egg") == ["goose", "goose egg"]


def test_ten_thousand_terms_are_no_slower_to_miss_than_to_build() -> None:
    detector = make({"lists": [{"category": "privacy_pii", "terms": [f"word{number}x" for number in range(10_000)]}]})
    text = "some prose without any of it, and word12 too " * 50
    assert detector.scan(text) == []
    assert detector.scan("a word9999x!") != []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text("abAB 王小", min_size=1, max_size=5).filter(lambda term: term.strip()), min_size=1, max_size=5),
    st.text("abAB 王小.", max_size=14),
)
def test_any_list_keeps_the_laws_of_streaming(terms: list[str], text: str) -> None:
    detector = make({"lists": [{"category": "privacy_pii", "terms": terms}]})
    assert faults(detector, text, categories=["privacy_pii"]) == []


@pytest.mark.parametrize(
    ("settings_table", "told"),
    [
        ({}, "'lists' is missing"),
        ({"lists": [{"category": "privacy_pii", "term": ["x"], "terms": ["x"]}]}, "did you mean 'terms'"),
        ({"lists": [{"category": "privacy", "terms": ["x"]}]}, "privacy_pii"),
        ({"lists": [{"category": "privacy_pii", "terms": [" "]}]}, "empty term"),
    ],
)
def test_wrong_settings_are_told(settings_table: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(settings_table)
