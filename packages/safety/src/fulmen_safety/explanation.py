"""What every detector says of a text, and what each of the four components would do about it and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fulmen_core.guard import Finding
from fulmen_safety.guard import GuardFailure, RaiseGuard
from fulmen_safety.normalise import View, views
from fulmen_safety.panel import Examination, Failure
from fulmen_safety.policy import STRICTNESS
from fulmen_safety.seat import Seen

#: A text is explained under these names, in the order of a model's life.
COMPONENTS = {"corpus": "RAISE-1", "reward": "RAISE-2", "input": "RAISE-3", "output": "RAISE-4"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one component does.

    Args:
        phase: "corpus", "reward", "input" or "output".
        action: what it does; for the reward, what it takes from it, e.g. ``"-0.40"``.
        why: one sentence.
        text: what goes on: the text as it would be kept, seen by the model or delivered; or the safe completion.
    """

    phase: str
    action: str
    why: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one text under one policy."""

    text: str
    views: tuple[View, ...]
    examinations: tuple[Examination, ...]
    outcomes: tuple[Outcome, ...]


def explain(guard: RaiseGuard, text: str, phases: Sequence[str] = tuple(COMPONENTS)) -> Explanation:
    """Ask every detector of the guard about `text`, and each component of `phases` what it would do.

    The components are the guard's own; nothing is recorded if it has no audit log.
    """
    outcomes = tuple(_OUTCOMES[phase](guard, text) for phase in COMPONENTS if phase in phases)
    return Explanation(text, tuple(views(text, decoded=True)), tuple(guard.panel.examine(text)), outcomes)


def as_json(guard: RaiseGuard, explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as JSON shows it."""
    text = explanation.text
    return {
        "text": text,
        "policy": guard.policy.file.name,
        "policy_version": guard.policy_version,
        "views": [{"name": view.name, "text": view.text} for view in explanation.views],
        "detectors": [
            {
                "detector": one.detector,
                "phases": list(one.phases),
                "milliseconds": round(one.milliseconds, 3),
                "failure": None if one.failure is None else one.failure.reason,
                "scores": None if one.scores is None else {code: round(value, 4) for code, value in one.scores.items()},
                "findings": [_finding(guard, text, finding, shown) for finding, shown in merged(one.seen)],
            }
            for one in explanation.examinations
        ],
        "phases": {one.phase: asdict(one) for one in explanation.outcomes},
    }


def merged(seen: Sequence[Seen]) -> list[tuple[Finding, list[str]]]:
    """Return each finding once, at its highest score, with the views that show it; ordered by place."""
    found: dict[tuple[object, ...], tuple[Finding, list[str]]] = {}
    for finding, view in seen:
        key = (finding.category, finding.label, finding.start, finding.end)
        before, shown = found.get(key, (finding, []))
        found[key] = (finding if finding.score > before.score else before, [*shown, view])
    return sorted(found.values(), key=lambda one: (one[0].start, one[0].end, one[0].label))


def _finding(guard: RaiseGuard, text: str, finding: Finding, shown: Sequence[str]) -> Mapping[str, Any]:
    rules = guard.policy.rules(finding)
    return {
        "category": finding.category,
        "label": finding.label,
        "score": round(finding.score, 4),
        "threshold": guard.policy.threshold(finding, text),
        "counts": guard.policy.counts(finding, text),
        "start": finding.start,
        "end": finding.end,
        "text": text[finding.start : finding.end],
        "views": list(dict.fromkeys(shown)),
        "actions": {phase: getattr(rules, phase) for phase in COMPONENTS},
    }


# -- the components ----------------------------------------------------------------------------------------------------


def _corpus(guard: RaiseGuard, text: str) -> Outcome:
    verdict = guard.judge_document(text)
    if verdict.action == "quarantine":
        return Outcome("corpus", verdict.action, f"{verdict.reason}; it fails closed", text)
    return Outcome("corpus", verdict.action, _why(guard, text, verdict.findings, "corpus"), verdict.text)


def _reward(guard: RaiseGuard, text: str) -> Outcome:
    try:
        penalty = guard.reward_penalty("", text)
    except GuardFailure as error:
        return Outcome("reward", "fail", str(error), text)
    found = guard.panel.read(text, "reward").findings
    return Outcome("reward", f"-{penalty:.2f}" if penalty else "0", _why(guard, text, found, "reward"), text)


def _input(guard: RaiseGuard, text: str) -> Outcome:
    verdict = guard.judge_input([{"role": "user", "content": text}])
    goes_on = verdict.message if verdict.action == "block" else verdict.messages[0]["content"]
    why = _why(guard, text, verdict.findings, "input", _failed(guard, text, "input"))
    return Outcome("input", verdict.action, why, goes_on)


def _output(guard: RaiseGuard, text: str) -> Outcome:
    verdict = guard.judge_output([{"role": "user", "content": text}], text)
    why = _why(guard, text, verdict.findings, "output", verdict.failures)
    return Outcome("output", verdict.action, why, verdict.text)


_OUTCOMES = {"corpus": _corpus, "reward": _reward, "input": _input, "output": _output}


def _failed(guard: RaiseGuard, text: str, phase: str) -> tuple[Failure, ...]:
    return guard.panel.read(text, phase).failures


def _why(
    guard: RaiseGuard, text: str, findings: Sequence[Finding], phase: str, failures: Sequence[Failure] = ()
) -> str:
    """Say which finding decided, or why none did."""
    closed = next((failure for failure in failures if failure.closed), None)
    if closed is not None:
        return f"{closed.reason}; it fails closed"
    policy = guard.policy
    counted = [one for one in findings if policy.counts(one, text)]

    def weight(finding: Finding) -> tuple[float, float]:
        rules = policy.rules(finding)
        rank = rules.reward * finding.score if phase == "reward" else STRICTNESS[phase].index(getattr(rules, phase))
        return float(rank), finding.score

    if counted and weight(worst := max(counted, key=weight))[0] > 0:
        reached = f"{worst.score:.2f} reaches {policy.threshold(worst, text):g}"
        return f"{worst.category}, by {worst.detector} ({worst.label or 'finding'}): {reached}"
    if counted:
        codes = ", ".join(dict.fromkeys(one.category for one in counted))
        return f"{codes} found, about which the policy does nothing here"
    below = [one for one in guard.panel.read(text, phase).findings if not policy.counts(one, text)]
    if below:
        near = max(below, key=lambda one: one.score)
        return f"{near.category} by {near.detector} stays below: {near.score:.2f} of {policy.threshold(near, text):g}"
    return "nothing found" if guard.panel.detectors(phase) else "no detector is asked here"
