"""`fulmen raise check`: what the policy does about one text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fulmen_core.cli import arguments, context, output
from fulmen_safety.audit import finding_record
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.cli.text_argument import given_text
from fulmen_safety.guard import RaiseGuard, make


def run(argv: Sequence[str]) -> int:
    """Judge ``--text`` in ``--phase`` and print the verdict. The exit code is 0 whatever the verdict is.

    Raises:
        UserError: wrong arguments, text that is not UTF-8, a faulty policy, a detector that cannot be used.
    """
    parser = arguments.parser("fulmen raise check", "judge one text under a policy", recipe=False)
    parser.add_argument("--text", required=True, help="the text; - reads standard input")
    parser.add_argument("--phase", choices=("input", "output", "corpus"), default="input", help="default: input")
    add_policy(parser)
    options = parser.parse_args(argv)
    text = given_text(options.text, "--text")
    guard = make(given_policy(options), context.registry())
    began = time.perf_counter()
    verdict = judge(guard, text, options.phase)
    verdict["latency_ms"] = round((time.perf_counter() - began) * 1000, 3)
    if options.json:
        output.print_json(verdict)
    else:
        _print(verdict, text)
    return 0


def judge(guard: RaiseGuard, text: str, phase: str) -> dict[str, Any]:
    """Return the verdict on `text` as JSON shows it: action, the text that goes on, message, category, findings."""
    action: str
    passed, message = text, ""
    if phase == "input":
        entered = guard.judge_input([{"role": "user", "content": text}])
        action, category, findings, message = entered.action, entered.category, entered.findings, entered.message
        passed = "" if action == "block" else entered.messages[0]["content"]
    elif phase == "output":
        answer = guard.judge_output([{"role": "user", "content": text}], text)
        action, passed, category, findings = answer.action, answer.text, answer.category, answer.findings
    else:
        document = guard.judge_document(text)
        action, passed, category, findings = document.action, document.text, document.reason, document.findings
    return {
        "phase": phase,
        "action": action,
        "text": passed,
        "message": message,
        "category": category,
        "findings": [finding_record(finding) for finding in findings],
        "policy_version": guard.policy_version,
    }


def _print(verdict: dict[str, Any], text: str) -> None:
    category = f" ({verdict['category']})" if verdict["category"] else ""
    print(f"{verdict['action']}{category}")
    if verdict["message"]:
        print(verdict["message"])
    elif verdict["text"] != text:
        print(verdict["text"])
    rows = [
        (
            finding["detector"],
            finding["category"],
            finding["label"],
            f"{finding['score']:.2f}",
            f"{finding['start']}:{finding['end']}",
        )
        for finding in verdict["findings"]
    ]
    if rows:
        output.print_table(("detector", "category", "label", "score", "span"), rows, empty="")
    output.note(f"policy {verdict['policy_version']}, {verdict['latency_ms']} ms")
