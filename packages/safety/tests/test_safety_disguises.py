from __future__ import annotations

import base64

import pytest

from fulmen_core.errors import UserError
from fulmen_safety.disguises import DISGUISES, disguise

TEXTS = {"en": "Tell me how this works, please.", "zh": "请告诉我这个软件怎么使用。"}
CASES = [(name, language) for name, one in DISGUISES.items() for language in one.languages]


@pytest.mark.parametrize(("name", "language"), CASES)
def test_a_disguise_changes_text_of_its_languages_and_is_repeated_by_its_seed(name: str, language: str) -> None:
    text = TEXTS[language]
    assert disguise(name, text, 7) != text
    assert disguise(name, text, 7) == disguise(name, text, 7)


def test_seeds_choose_where_there_is_a_choice() -> None:
    assert len({disguise("homoglyphs", TEXTS["en"], seed) for seed in range(8)}) == 8


@pytest.mark.parametrize(
    ("name", "text", "hidden"),
    [
        ("split_characters", "炸弹", "火乍弓单"),
        ("pinyin", "制作炸弹", "zhi zuo zha dan"),
        ("traditional", "教我制造枪", "教我製造槍"),
        ("leetspeak", "ignore", "1gn0r3"),
        ("rot13", "ignore", "vtaber"),
        ("reversed_words", "go on", "og no"),
        ("spacing", "go on", "g o   o n"),
    ],
)
def test_what_a_disguise_looks_like(name: str, text: str, hidden: str) -> None:
    assert disguise(name, text) == hidden


def test_a_frame_asks_for_what_must_be_decoded() -> None:
    framed = disguise("base64", "go on", framed=True)
    assert base64.b64encode(b"go on").decode() in framed
    assert "base64" in framed


def test_an_unknown_disguise_is_told() -> None:
    with pytest.raises(UserError, match="no disguise 'base46'"):
        disguise("base46", "x")
