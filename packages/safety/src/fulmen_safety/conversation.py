"""RAISE-3: a whole conversation judged before the model sees it, not its last turn alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fulmen_core.guard import Finding, InputVerdict
from fulmen_safety.edits import plan_edits, redacted
from fulmen_safety.hold_back import GUARD_FAILURE
from fulmen_safety.language import language_of
from fulmen_safety.panel import Failure, Panel, names_of
from fulmen_safety.policy import STRICTNESS, Policy


@dataclass
class ConversationReading:
    """What the panel saw: findings by turn, and failures."""

    findings: list[Finding] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether a detector failed that fails closed."""
        return any(failure.closed for failure in self.failures)


def judge_conversation(
    panel: Panel, policy: Policy, messages: Sequence[Mapping[str, str]]
) -> tuple[InputVerdict, list[Failure]]:
    """Judge every turn that is not the model's own, alone and joined with the others.

    An attack spread over several turns is seen in the joined text; such a finding is given for the turn in which it
    ends.
    """
    turns = [
        turn for turn, message in enumerate(messages) if message.get("role") not in policy.file.input.trusted_roles
    ]
    reading = _read(panel, messages, turns)
    verdict = _verdict(panel, policy, messages, turns, reading)
    return replace(verdict, degraded=names_of(reading.failures)), reading.failures


def _verdict(
    panel: Panel,
    policy: Policy,
    messages: Sequence[Mapping[str, str]],
    turns: Sequence[int],
    reading: ConversationReading,
) -> InputVerdict:
    language = conversation_language(messages)
    given = tuple(messages)
    if reading.closed:
        message = policy.file.failure.text(language)
        return InputVerdict("block", given, tuple(reading.findings), message, GUARD_FAILURE)
    counted = [one for one in reading.findings if policy.counts(one, _content(messages[one.turn]))]
    findings = tuple(counted)
    blocking = [one for one in counted if policy.action(one, "input") == "block"]
    if blocking:
        worst = max(blocking, key=lambda finding: finding.score)
        message = policy.message(worst, language)
        return InputVerdict("block", given, findings, message, worst.category)
    rewritten = list(messages)
    category = ""
    for turn in turns:
        text = _content(messages[turn])
        judged = ((one, policy.action(one, "input")) for one in counted if one.turn == turn)
        if edits := plan_edits(judged, STRICTNESS["input"]):
            rewritten[turn] = {**messages[turn], "content": redacted(text, edits, panel.replacement)}
            category = category or edits[0].finding.category
    if not category:
        return InputVerdict("allow", given, findings)
    return InputVerdict("rewrite", tuple(rewritten), findings, category=category)


def conversation_language(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the language in which to answer: that of the last user turn."""
    said = (_content(message) for message in reversed(messages) if message.get("role") == "user")
    return language_of(next(said, ""))


def _read(panel: Panel, messages: Sequence[Mapping[str, str]], turns: Sequence[int]) -> ConversationReading:
    result = ConversationReading()
    ends: list[int] = []  # of each judged turn in the joined text
    pieces: list[str] = []
    length = 0
    for turn in turns:
        text = _content(messages[turn])
        reading = panel.read(text, "input")
        result.findings += [replace(finding, turn=turn) for finding in reading.findings]
        result.failures += reading.failures
        pieces.append(text)
        length += len(text) + 1
        ends.append(length)
    if len(turns) < 2:
        return result
    joined = panel.read("\n".join(pieces), "input")
    result.failures += joined.failures
    for finding in joined.findings:
        first = next(place for place, end in enumerate(ends) if finding.start < end)
        last = next(place for place, end in enumerate(ends) if finding.end <= end)
        inside = finding.end - (ends[last - 1] if last else 0)
        if first < last and 0 < inside <= len(pieces[last]):
            result.findings.append(replace(finding, start=0, end=inside, turn=turns[last]))
    return result


def _content(message: Mapping[str, str]) -> str:
    return message.get("content") or ""
