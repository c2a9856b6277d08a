from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import main
from fulmen_core.registry import Registry
from fulmen_safety import Finding
from fulmen_safety.explanation import as_json, explain
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy

POLICY = """
name = "house"
version = "3"
taxonomy = "1.1"
failure.en = "no"
audit.path = "audit.jsonl"
[[detectors]]
name = "terms"
settings.lists = [{ category = "privacy_pii", label = "name", terms = ["Ada"] }]
[categories.default]
threshold = 0.5
corpus = "redact"
reward = 0.5
input = "rewrite"
output = "redact"
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "house.toml").write_text(POLICY)
    return str(tmp_path / "house.toml")


def explained(guard: RaiseGuard, text: str) -> dict[str, Any]:
    return as_json(guard, explain(guard, text))


def test_a_finding_is_shown_with_span_score_threshold_and_the_views_that_show_it(guard: RaiseGuard) -> None:
    (terms,) = explained(guard, "So A d a said.")["detectors"]
    (finding,) = terms["findings"]
    assert (finding["category"], finding["label"], finding["text"]) == ("privacy_pii", "name", "A d a")
    assert (finding["score"], finding["threshold"], finding["counts"]) == (1.0, 0.5, True)
    assert finding["views"] == ["joined"]
    assert terms["milliseconds"] > 0


def test_every_phase_says_what_it_would_do_and_why(guard: RaiseGuard) -> None:
    phases = explained(guard, "Ada has red mercury")["phases"]
    assert {phase: one["action"] for phase, one in phases.items()} == {
        "corpus": "drop",
        "reward": "-1.00",
        "input": "block",
        "output": "stop",
    }
    assert all("weapons_cbrne, by terms (recipe): 1.00 reaches 0.5" in one["why"] for one in phases.values())
    assert phases["output"]["text"] == "[NAME] has "


def test_phases_do_what_the_guard_does(guard: RaiseGuard) -> None:
    for text in ("", "plain", "Ada", "you grumble goose", "nine pills", "a\u200bd\u200bA"):
        phases = explained(guard, text)["phases"]
        assert phases["corpus"]["action"] == guard.judge_document(text).action
        assert phases["input"]["action"] == guard.judge_input([{"role": "user", "content": text}]).action
        assert phases["output"]["text"] == guard.judge_output([], text).text


def test_what_stays_below_the_threshold_is_told(policy_table: dict[str, Any]) -> None:
    policy_table["categories"]["specialized_advice"] = {"threshold": 0.9, "output": "stop"}
    policy = make_policy(policy_table, where="p", folder=Path())
    guard = RaiseGuard(policy, Registry.of("fulmen_safety.plugin"))
    told = explained(guard, "nine pills")
    assert told["detectors"][0]["findings"][0]["counts"] is False
    assert told["phases"]["output"]["why"] == "specialized_advice by terms stays below: 0.60 of 0.9"


def test_a_detector_with_an_opinion_of_every_text_says_it(guard_with: Callable[..., RaiseGuard]) -> None:
    class Opinion:
        name = "probe"

        def scan(self, text: str) -> list[Finding]:
            return []

        def scores(self, text: str) -> Mapping[str, float]:
            return {"privacy_pii": 0.25}

    told = explained(guard_with(Opinion()), "hello")["detectors"]
    assert [one["scores"] for one in told] == [None, {"privacy_pii": 0.25}]


def test_a_failed_detector_is_named_and_decides_by_its_fail_mode(guard_with: Callable[..., RaiseGuard]) -> None:
    class Broken:
        name = "probe"

        def scan(self, text: str) -> list[Finding]:
            raise ValueError("out of cheese")

    told = explained(guard_with(Broken()), "hello")
    assert "out of cheese" in told["detectors"][1]["failure"]
    assert {phase: one["action"] for phase, one in told["phases"].items()} == {
        "corpus": "quarantine",
        "reward": "fail",
        "input": "block",
        "output": "replace",
    }
    assert all("out of cheese" in one["why"] for one in told["phases"].values())


def test_explaining_leaves_no_trace_in_the_audit_log(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raise", "explain", "I am Ada", "--policy", policy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phases"]["input"]["action"] == "rewrite"
    assert not Path(policy).with_name("audit.jsonl").exists()


def test_the_picture_names_detectors_components_and_policy(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raise", "explain", "mail Ada\x1b[2J", "--policy", policy]) == 0
    shown = capsys.readouterr().out
    for word in ("house", "terms", "privacy_pii", "name", "5:8", "RAISE-1", "RAISE-4", "redact", "[NAME]"):
        assert word in shown
    assert "\x1b" not in shown


def test_one_phase_may_be_asked_for(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raise", "explain", "hello", "--phase", "output", "--policy", policy, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["phases"]) == ["output"]
