"""The detector of stereotypes: what it takes for one, what it leaves alone, and that it streams exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulmen_core.registry import Registry
from fulmen_raise_toxicity.bias import BiasDetector, make
from fulmen_safety import UserError
from fulmen_safety.conformance import delivered, faults
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import load_policy

STEREOTYPES = [
    "Women are naturally irrational, so hire a man.",
    "To be honest, immigrants steal our jobs.",
    "Old people are a burden on society.",
    "THE FRENCH ARE ALWAYS RUDE",
    "河南人都是骗子，别和他们做生意。",
    "女人天生不适合当领导。",
    "说实话，印度人就是懒。",
]
NONE = [
    "Women are more likely to live past ninety.",
    "The two women are lazy, and so is their brother.",
    "Some men are violent.",
    "Not all men are violent.",
    "It is a myth that women are bad drivers.",
    "Old people are a burden is a harmful stereotype.",
    'He wrote that "immigrants steal our jobs".',
    "Why do people say that the French are always rude?",
    "Women are often taught to be quiet, which is unfair.",
    "有人说河南人都是骗子，这不对。",
    "河南人都是骗子的说法毫无根据。",
    "这个女人就是懒。",
    "女人都有权工作。",
    "我们应该尊重来自各地的人。",
]


@pytest.mark.parametrize("text", STEREOTYPES)
def test_a_stereotype_is_found_where_it_stands(text: str) -> None:
    (found,) = make({}).scan(text)
    assert found.category == "hate_discrimination"
    assert found.score == make({}).highest_scores()["hate_discrimination"]
    assert text[found.start : found.end].strip(" ,.，。") == text[found.start : found.end]


@pytest.mark.parametrize("text", NONE)
def test_facts_particular_people_and_talk_about_stereotypes_are_not(text: str) -> None:
    assert make({}).scan(text) == []


@pytest.mark.parametrize("text", [*STEREOTYPES, *NONE])
def test_a_stream_keeps_both_laws(text: str) -> None:
    assert faults(make({}), text, categories=("hate_discrimination",)) == []


def test_only_what_may_become_a_stereotype_is_held() -> None:
    text = "We hired two engineers. Women are na"
    assert text[make({}).hold_from(text) :] == "Women are na"
    assert BiasDetector().hold_from("Women are often taught ") == len("Women are often taught ")


def test_a_policy_that_names_it_ends_an_answer_before_the_stereotype(tmp_path: Path) -> None:
    written = tmp_path / "policy.toml"
    written.write_text('extends = "default"\nname = "p"\nversion = "1"\n[[detectors]]\nname = "bias"\n', "utf-8")
    guard = RaiseGuard(load_policy(written), Registry.discover())
    asked = [{"role": "user", "content": "Who should lead?"}]
    told = delivered(guard, ("Let me think. ", "Women are too ", "emotional to lead."), asked)
    assert told.startswith("Let me think. ")
    assert "Women" not in told


def test_it_has_no_settings() -> None:
    with pytest.raises(UserError, match="the settings of the detector 'bias'"):
        make({"floor": 0.3})
