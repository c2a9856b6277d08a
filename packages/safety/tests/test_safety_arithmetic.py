from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen_core.registry import Registry
from fulmen_safety.arithmetic import ArithmeticDetector, make
from fulmen_safety.conformance import faults
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy

PIECES = [
    "1",
    "2",
    "12",
    "3.5",
    " ",
    "+",
    "-",
    "*",
    "/",
    "×",
    "=",
    " = ",
    "4",
    ".",
    ",",
    "x",
    "a",
    "和",
    "\n",
    "12*7=85",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(TEXTS)
def test_it_keeps_both_laws_of_streams(text: str) -> None:
    assert faults(ArithmeticDetector(), text, categories={"specialized_advice"}) == []
    assert faults(ArithmeticDetector("is 12*7=85?"), text, categories={"specialized_advice"}) == []


@pytest.mark.parametrize(
    "wrong", ["12 * 7 = 85", "2+2=5", "10 ÷ 4 = 2", "9 - 10 = 1", "1.5×2=4", "所以3x4=13。", "5/0=1", "10/3=3.34"]
)
def test_a_sum_that_does_not_hold_is_found(wrong: str) -> None:
    (finding,) = ArithmeticDetector().scan(f"So {wrong} then")
    assert (finding.category, finding.label) == ("specialized_advice", "wrong sum")


@pytest.mark.parametrize(
    "right",
    [
        "12 * 7 = 84",
        "10/4=2.5",
        "10 / 3 = 3.33",
        "2/3 = 0.6667",
        "1 + 2 + 3 = 6",
        "x = 2 + 2 = 5y",
        "2+2=5.5%",
        "a2+2=5",
        "1,000+1=2",
        "(1+1)*2=4",
        "2+2=4+1",
        "version 1.2.3-4=5a",
        "1 + 2 = 1,003",
    ],
)
def test_what_holds_or_is_part_of_something_longer_is_not(right: str) -> None:
    assert ArithmeticDetector().scan(right) == []


def test_an_error_that_the_question_holds_is_quoted_and_not_made() -> None:
    asked = ArithmeticDetector().in_context([{"role": "user", "content": "Is it true that 2 + 2 = 5?"}])
    assert [one.start for one in asked.scan("2+2=5 is false, and 3+3=7 too")] == [20]


def test_the_guard_tells_it_what_was_asked(policy_table: dict[str, Any]) -> None:
    policy_table["detectors"].append({"name": "arithmetic"})
    policy_table["categories"]["specialized_advice"] = {"output": "redact"}
    policy = make_policy(policy_table, where="p", folder=Path())
    guard = RaiseGuard(policy, Registry.of("fulmen_safety.plugin"))
    asked, other = ([{"role": "user", "content": text}] for text in ("Is 2+2=5?", "What is 2+2?"))
    for messages, told in ((asked, "No, 2+2=5 is false."), (other, "No, [WRONG SUM] is false.")):
        assert guard.judge_output(messages, "No, 2+2=5 is false.").text == told
        stream = guard.open_output(messages)
        assert "".join(stream.feed(char).text for char in "No, 2+2=5 is false.") + stream.finish().text == told
    assert guard.reward_penalty("Is 2+2=5?", "2+2=5 is false") == 0.0
    assert guard.reward_penalty("What is 2+2?", "2+2=5") == pytest.approx(0.9 * 0.2)


def test_it_has_no_settings() -> None:
    with pytest.raises(Exception, match="unknown key 'digits'"):
        make({"digits": 3})
