from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.guard import Guard
from fulmen_core.registry import Registry
from fulmen_safety import Finding, UserError
from fulmen_safety.guard import GuardFailure, RaiseGuard


def user(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


class Sleeper:
    """A detector that never answers until it is told to."""

    name = "probe"

    def __init__(self) -> None:
        self.wake = threading.Event()

    def scan(self, text: str) -> list[Finding]:
        self.wake.wait(30)
        return []


class Broken:
    """A detector that always raises."""

    name = "probe"

    def scan(self, text: str) -> list[Finding]:
        raise ValueError("out of cheese")


def test_the_guard_keeps_the_contract(guard: RaiseGuard) -> None:
    as_contract: Guard = guard
    assert (as_contract.name, as_contract.policy_version) == ("raise", guard.policy.version)


# -- RAISE-1 -----------------------------------------------------------------------------------------------------------


def test_a_document_is_kept_redacted_or_dropped(guard: RaiseGuard) -> None:
    assert guard.judge_document("plain").action == "keep"
    verdict = guard.judge_document("Ada wrote to 王小明.")
    assert (verdict.action, verdict.text) == ("redact", "[NAME] wrote to [NAME].")
    verdict = guard.judge_document("Ada has red mercury")
    assert (verdict.action, verdict.text, verdict.reason) == ("drop", "", "weapons_cbrne")


def test_a_document_is_quarantined_unchanged_when_a_detector_fails(guard_with: Callable[..., RaiseGuard]) -> None:
    verdict = guard_with(Broken()).judge_document("Ada")
    assert (verdict.action, verdict.text) == ("quarantine", "Ada")
    assert "out of cheese" in verdict.reason


# -- RAISE-2 -----------------------------------------------------------------------------------------------------------


def test_a_penalty_is_the_heaviest_category_times_its_score(guard: RaiseGuard) -> None:
    assert guard.reward_penalty("who?", "nobody") == 0.0
    assert guard.reward_penalty("who?", "It was Ada.") == pytest.approx(0.4)
    assert guard.reward_penalty("how much?", "nine pills") == pytest.approx(0.6 * 0.2)
    assert guard.reward_penalty("who?", "Ada, the grumble goose") == pytest.approx(1.0)


def test_repeating_what_the_prompt_says_is_no_disclosure(guard: RaiseGuard) -> None:
    assert guard.reward_penalty("Write to Ada.", "Dear Ada, hello") == 0.0


def test_a_reward_without_its_detector_is_refused(guard_with: Callable[..., RaiseGuard]) -> None:
    with pytest.raises(GuardFailure, match="out of cheese"):
        guard_with(Broken()).reward_penalty("a", "b")
    assert guard_with(Broken(), entry={"on_error": "open"}).reward_penalty("a", "Ada") == pytest.approx(0.4)


# -- RAISE-3 -----------------------------------------------------------------------------------------------------------


def test_an_input_is_allowed_rewritten_or_blocked(guard: RaiseGuard) -> None:
    assert guard.judge_input(user("hello")).action == "allow"
    verdict = guard.judge_input(user("I am Ada"))
    assert (verdict.action, verdict.messages[0]["content"]) == ("rewrite", "I am [NAME]")
    verdict = guard.judge_input(user("you grumble goose"))
    assert (verdict.action, verdict.message, verdict.category) == ("block", "Let us stay kind.", "hate_discrimination")


def test_a_block_speaks_the_users_language(guard: RaiseGuard) -> None:
    assert guard.judge_input(user("你是 grumble goose")).message == "请友善。"


@pytest.mark.parametrize("role", ["user", "tool", "system", "developer"])
def test_every_turn_counts_not_the_last_alone(guard: RaiseGuard, role: str) -> None:
    messages = [{"role": role, "content": "make red mercury"}, *user("thanks"), *user("go on")]
    verdict = guard.judge_input(messages)
    assert (verdict.action, [one.turn for one in verdict.findings]) == ("block", [0])


def test_the_models_own_turns_are_not_judged(guard: RaiseGuard) -> None:
    assert guard.judge_input([*user("hi"), {"role": "assistant", "content": "red mercury"}]).action == "allow"


def test_rewriting_leaves_the_other_turns_and_keys_alone(guard: RaiseGuard) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Ada", "name": "a"}]
    verdict = guard.judge_input(messages)
    assert verdict.messages == (messages[0], {"role": "user", "content": "[NAME]", "name": "a"})
    assert messages[1]["content"] == "Ada"


class AcrossTurns:
    """Sees an attack only where both halves are in one text."""

    name = "probe"

    def scan(self, text: str) -> list[Finding]:
        start = text.find("first half")
        end = text.find("second half")
        return [Finding("probe", "privacy_pii", 1.0, start, end + 11)] if 0 <= start < end else []


def test_an_attack_spread_over_turns_is_seen(
    guard_with: Callable[..., RaiseGuard], policy_table: dict[str, Any]
) -> None:
    categories = policy_table["categories"]
    categories["privacy_pii"] = {**categories["privacy_pii"], "input": "block", "message": {"en": "no"}}
    guard = guard_with(AcrossTurns(), categories=categories)
    verdict = guard.judge_input(user("the first half,", "nothing", "the second half!"))
    assert (verdict.action, verdict.findings[0].turn) == ("block", 2)
    assert verdict.findings[0].end == len("the second half")


def test_an_unchecked_input_is_blocked_or_passed_as_the_policy_says(guard_with: Callable[..., RaiseGuard]) -> None:
    verdict = guard_with(Broken()).judge_input(user("hello"))
    assert (verdict.action, verdict.category, verdict.message) == ("block", "guard_failure", "cannot check")
    assert guard_with(Broken(), entry={"on_error": "open"}).judge_input(user("Ada")).action == "rewrite"


def test_a_detector_that_hangs_is_late_and_does_not_hang_the_guard(guard_with: Callable[..., RaiseGuard]) -> None:
    sleeper = Sleeper()
    guard = guard_with(sleeper, entry={"deadline_ms": 30})
    began = time.monotonic()
    for _ in range(12):
        assert guard.judge_input(user("hello")).category == "guard_failure"
    assert time.monotonic() - began < 10
    sleeper.wake.set()


def test_thresholds_may_differ_by_language(guard_with: Callable[..., RaiseGuard], policy_table: dict[str, Any]) -> None:
    class Unsure:
        name = "probe"

        def scan(self, text: str) -> list[Finding]:
            at = text.find("Bo")
            return [Finding("probe", "privacy_pii", 0.6, at, at + 2, "name")] if at >= 0 else []

    categories = policy_table["categories"]
    categories["privacy_pii"] = {**categories["privacy_pii"], "thresholds": {"zh": 0.7}}
    guard = guard_with(Unsure(), categories=categories)
    assert guard.judge_input(user("I am Bo")).action == "rewrite"
    assert guard.judge_input(user("我是Bo")).action == "allow"


# -- loading -----------------------------------------------------------------------------------------------------------


def test_the_registry_makes_the_guard_and_names_a_detector_that_is_not_there(tmp_path: Path) -> None:
    registry = Registry.of("fulmen_safety.plugin")
    with pytest.raises(UserError, match="unknown detector 'pii'") as missing:
        registry.guard("raise")
    assert "pip install 'fulmen[raise]'" in str(missing.value)
    assert "enabled = false leaves one out" in str(missing.value)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        """
        name = "small"
        version = "1"
        taxonomy = "1.1"
        failure.en = "no"
        [[detectors]]
        name = "terms"
        [[detectors.settings.lists]]
        category = "self_harm"
        terms = ["abyss"]
        [categories.default]
        threshold = 0.5
        corpus = "drop"
        reward = 0.5
        input = "allow"
        output = "redact"
        """
    )
    assert registry.guard("raise", policy).judge_document("the abyss").action == "drop"


def test_a_plugin_that_makes_no_detector_is_refused(guard_with: Callable[..., RaiseGuard]) -> None:
    with pytest.raises(UserError, match=r"no name and scan\(\)"):
        guard_with(object())


def test_a_phase_that_a_detector_does_not_offer_is_refused(guard_with: Callable[..., RaiseGuard]) -> None:
    with pytest.raises(UserError, match="phase"):
        guard_with(Broken(), entry={"phases": ["inputs"]})
