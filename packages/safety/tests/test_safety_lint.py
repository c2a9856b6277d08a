from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.registry import Registry
from fulmen_safety import Finding
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.lint import remarks
from fulmen_safety.panel import Panel
from fulmen_safety.policy import make_policy


def told(table: dict[str, Any]) -> list[str]:
    policy = make_policy(table, where="p.toml", folder=Path())
    return [": ".join(one) for one in remarks(policy, Panel(policy, Registry.of("fulmen_safety.plugin")))]


def test_a_policy_that_says_nothing_in_vain_has_no_remark(policy_table: dict[str, Any]) -> None:
    policy_table["categories"]["weapons_cbrne"]["message"]["zh"] = "不行"
    assert told(policy_table) == []


def _lists(table: dict[str, Any]) -> list[dict[str, Any]]:
    lists: list[dict[str, Any]] = table["detectors"][0]["settings"]["lists"]
    return lists


ODDITIES: list[tuple[str, Any, str]] = [
    (
        "a dead rule",
        lambda t: t["categories"].update(sex_crime={"corpus": "drop"}),
        r"^dead: no detector of this policy reports sex_crime",
    ),
    (
        "an unreachable threshold",
        lambda t: (_lists(t)[3].update(score=0.3), t["categories"].update(specialized_advice={"corpus": "drop"})),
        r"^dead: the threshold 0.5 of \[categories.specialized_advice\] is never reached: 'terms' gives 0.3 at most",
    ),
    (
        "a threshold that is unreachable in one language",
        lambda t: t["categories"]["default"].update(thresholds={"zh": 0.7}),
        r"^dead: the threshold 0.7 of \[categories.specialized_advice\] for zh is never reached",
    ),
    (
        "a threshold for a language that changes nothing",
        lambda t: t["categories"]["privacy_pii"].update(thresholds={"zh": 0.5}),
        r"^dead: .*privacy_pii\] thresholds.zh is its threshold already",
    ),
    (
        "a threshold that everything reaches",
        lambda t: t["categories"]["privacy_pii"].update(threshold=0),
        r"^exposure: .*privacy_pii\] threshold = 0",
    ),
    (
        "a detector without a category that acts",
        lambda t: (_lists(t).__delitem__(slice(1, 3)), t["categories"].clear(), t["categories"].update(default=IDLE)),
        r"^dead: the detector 'terms' is asked in vain",
    ),
    (
        "a category that is reported and not heeded",
        lambda t: t["categories"]["default"].update(reward=0),
        r"^dead: specialized_advice follow \[categories.default\], which does nothing",
    ),
    (
        "an action in a phase that nobody judges",
        lambda t: t["detectors"][0].update(phases=["input"]),
        r'^dead: \[categories.privacy_pii\] output = "redact" has no effect',
    ),
    (
        "a message that lacks a language",
        lambda t: t["categories"]["hate_discrimination"]["message"].pop("zh"),
        r"^language: \[categories.hate_discrimination\] has no message.zh",
    ),
    ("a failure that lacks a language", lambda t: t["failure"].pop("zh"), r"^language: \[failure\] has no zh"),
    (
        "training for what is stopped",
        lambda t: t["categories"]["weapons_cbrne"].update(reward=0.0),
        r"^contradiction: \[categories.weapons_cbrne\] ends answers with it and takes nothing",
    ),
    (
        "dropping from the corpus what may be said",
        lambda t: t["categories"]["privacy_pii"].update(corpus="drop", output="allow"),
        r"^contradiction: \[categories.privacy_pii\] drops it from the corpus and lets the model say it",
    ),
    (
        "blocking the question and allowing the answer",
        lambda t: t["categories"]["weapons_cbrne"].update(output="allow"),
        r"^contradiction: \[categories.weapons_cbrne\] blocks the question and allows the answer",
    ),
    ("an open door", lambda t: t["detectors"][0].update(on_error="open"), r"^exposure: .*'terms' fails open"),
    ("a hopeless deadline", lambda t: t["detectors"][0].update(deadline_ms=0.1), r"^delay: .*0.1 ms, which none"),
    ("an endless deadline", lambda t: t["detectors"][0].update(deadline_ms=60000), r"^delay: .*60000 ms"),
    ("no detector", lambda t: t["detectors"].clear(), r"^dead: there is no detector"),
    ("trusted users", lambda t: t.update(input={"trusted_roles": ["user"]}), r'^exposure: .*trusts the role "user"'),
    ("trusted tools", lambda t: t.update(input={"trusted_roles": ["tool"]}), r'^exposure: .*trusts the role "tool"'),
    ("an unheard-of role", lambda t: t.update(input={"trusted_roles": ["bot"]}), r"^dead: .*the role 'bot'"),
    (
        "text in the audit",
        lambda t: t.update(audit={"path": "a.jsonl", "text": True, "keep": "9d"}),
        r"^exposure: \[audit\] text = true",
    ),
    ("an endless audit", lambda t: t.update(audit={"path": "a.jsonl"}), r"^exposure: \[audit\] says no `keep`"),
]
IDLE = {"threshold": 0.5, "corpus": "keep", "reward": 0.0, "input": "allow", "output": "allow"}


@pytest.mark.parametrize(("change", "remark"), [one[1:] for one in ODDITIES], ids=[one[0] for one in ODDITIES])
def test_an_oddity_is_remarked_on(policy_table: dict[str, Any], change: Any, remark: str) -> None:
    assert not any(re.search(remark, one) for one in told(policy_table))
    change(policy_table)
    assert any(re.search(remark, one) for one in told(policy_table)), told(policy_table)


def test_a_detector_that_cannot_stream_is_remarked_on(guard_with: Callable[..., RaiseGuard]) -> None:
    class Whole:
        name = "probe"

        def scan(self, text: str) -> list[Finding]:
            return []

    guard = guard_with(Whole())
    assert any(one.kind == "delay" and "'probe'" in one.text for one in remarks(guard.policy, guard.panel))
