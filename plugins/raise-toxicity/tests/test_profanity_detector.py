"""The detector of profane words: words by themselves, in any case, by kind; and that it streams exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.registry import Registry
from fulmen_raise_toxicity.profanity import make
from fulmen_safety import UserError
from fulmen_safety.conformance import delivered, faults
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.normalise import views
from fulmen_safety.policy import load_policy


def found(text: str, **table: Any) -> set[tuple[str, str]]:
    return {(one.label, text[one.start : one.end]) for one in make(table).scan(text)}


def test_words_are_found_alone_and_in_any_case_with_their_kind() -> None:
    assert found("What a SHITTY day, you moron") == {("profane", "SHITTY"), ("insult", "moron")}
    assert found("f*ck this") == {("profane", "f*ck")}


@pytest.mark.parametrize(
    "text",
    [
        "The class in Scunthorpe assessed a cocktail of classic analyses.",
        "Hello, the shell accumulates documents; Essex and Sussex are counties.",
        "今天天气很好，我们去公园散步。",
        "a * b ** c",
    ],
)
def test_words_inside_of_others_are_not(text: str) -> None:
    assert found(text) == set()


def test_kinds_and_allowed_words_narrow_the_list() -> None:
    text = "damn, you moron"
    assert found(text, kinds=["insult"]) == {("insult", "moron")}
    assert found(text, allow=["Damn"]) == {("insult", "moron")}


FRAGMENTS = st.sampled_from(
    ["fuck", "ing", "er", " ", "shit", "s", "cl", "ass", "hole", "*", ".", "x", "f*", "ck", "shut", " up"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAGMENTS, max_size=8).map("".join))
def test_a_stream_keeps_both_laws(text: str) -> None:
    assert faults(make({}), text, categories=("hate_discrimination",)) == []


@pytest.mark.parametrize("pieces", [("What a load of sh", "it that is."), ("What a load of s h ", "i t that is.")])
def test_a_policy_that_names_it_ends_an_answer_before_the_word_disguised_or_not(
    pieces: tuple[str, ...], tmp_path: Path
) -> None:
    written = tmp_path / "policy.toml"
    written.write_text('extends = "default"\nname = "p"\nversion = "1"\n[[detectors]]\nname = "profanity"\n', "utf-8")
    guard = RaiseGuard(load_policy(written), Registry.discover())
    told = delivered(guard, ("Let me think. ", *pieces), [{"role": "user", "content": "What do you think?"}])
    assert told.startswith("Let me think. What a load of")
    assert "sh" not in told.split("load of")[1][:3]
    assert "that is" not in told


@pytest.mark.parametrize(("table", "told"), [({"kind": ["slur"]}, "did you mean 'kinds'"), ({"kinds": []}, "kinds")])
def test_wrong_settings_are_told(table: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(table)


@pytest.mark.parametrize("text", ["s h i t", "well, s h i t, then", "what a ѕhit show", "fu\u200bck"])
def test_a_view_shows_what_is_disguised(text: str) -> None:
    detector = make({})
    assert not detector.scan(text)
    assert any(detector.scan(view.text) for view in views(text, decoded=True))
