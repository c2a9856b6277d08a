"""The shipped model: what it tells apart, in whole texts and in streams, and that it is what its card says."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest

from fulmen_raise_toxicity.detector import make, make_answer
from fulmen_safety import UserError
from fulmen_safety.conformance import faults
from fulmen_safety.learned.artefact import CARD, WEIGHTS

OFFENSIVE = [
    "shut up you stupid bitch",
    "these faggots are disgusting trash",
    "黑鬼滚回非洲去，真恶心",
    "女司机都是蠢货，打拳的母狗",
]
CIVIL = [
    "Thank you, that was very kind of you.",
    "The garbage is collected on Mondays.",
    "How do I make lentil soup?",
    "我们应该尊重来自各地的人。",
    "今天天气很好，我们去公园散步吧。",
    "黑人运动员获得了金牌，大家都为他高兴。",
]


@pytest.mark.parametrize("text", OFFENSIVE)
def test_an_insult_is_found(text: str) -> None:
    assert make({}).scores(text)["hate_discrimination"] > 0.8
    assert make_answer({}).scores(text)["hate_discrimination"] > 0.8


@pytest.mark.parametrize("text", CIVIL)
def test_civil_language_is_not(text: str) -> None:
    assert make({}).scores(text)["hate_discrimination"] < 0.6


@pytest.mark.parametrize("text", OFFENSIVE)
def test_a_stream_keeps_both_laws(text: str) -> None:
    detector = make_answer({"floor": 0.05})
    assert faults(detector, text, categories=("hate_discrimination",)) == []


def test_the_card_is_of_these_weights_and_names_a_licence_for_every_source() -> None:
    folder = Path(str(resources.files("fulmen_raise_toxicity") / "data/toxicity"))
    card = json.loads((folder / CARD).read_text("utf-8"))
    assert card["sha256"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert all(one["licence"] != "not stated" and "NC" not in one["licence"] for one in card["sources"])


def test_a_setting_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="the settings of the detector 'toxicity-answer'"):
        make_answer({"flor": 0.3})
