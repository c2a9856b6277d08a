"""One text under one policy, as an evaluation needs it: how suspect, flagged or not, refused or not, how long it took.

*Flagged* is what the guard sees: a finding that reaches its category's threshold. *Refused* is what the policy then
does: block the input, replace or stop the answer. Categories that the policy merely mends, as personal data are
redacted, make no text unsafe and count for neither, unless a detector is measured alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding, InputVerdict
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.hold_back import GUARD_FAILURE, OutputVerdict
from fulmen_safety.panel import DetectorSource
from fulmen_safety.policy import DetectorEntry, Policy
from fulmen_safety.text_scores import text_scores

#: Actions that refuse a text, and those that mend it and let it pass.
REFUSALS = frozenset({"block", "replace", "stop"})
MENDING = frozenset({"rewrite", "redact"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guard makes of one text.

    Args:
        score: how suspect, in [0, 1]: the highest over detectors, categories and views; 1 where
            it fails closed.
        flagged: whether a finding reaches its threshold.
        refused: whether the policy refuses the text.
        failed: a detector gave no result. Where the policy fails closed, the text counts as flagged and refused.
        milliseconds: the guard's own time for its verdict.
    """

    score: float
    flagged: bool
    refused: bool
    failed: bool
    milliseconds: float


class Judge:
    """A policy's guard in one phase ("input" or "output"), without its audit log.

    Args:
        detector: measure this one alone, under the policy's settings and thresholds for it.

    Raises:
        PluginError: there is no such detector, or it is broken.
        UserError: none judges in this phase.
    """

    def __init__(self, policy: Policy, source: DetectorSource, phase: str, detector: str | None = None) -> None:
        self.policy = _alone(policy, detector, phase) if detector else _unrecorded(policy)
        self.phase, self.detector = phase, detector
        self.guard = RaiseGuard(self.policy, source)
        if not self.guard.panel.detectors(phase):
            names = ", ".join(entry.name for entry in self.policy.detectors) or "none"
            what = f"no detector judges the phase {phase!r}"
            raise UserError(what, where=policy.where, remedy=f"its detectors are {names}; choose another phase")

    def judge(self, text: str, prompt: str = "") -> Judgement:
        """Judge a message of a user, or an answer to `prompt`."""
        asked = [{"role": "user", "content": prompt if self.phase == "output" else text}]
        if self.phase == "input":
            return self.judge_conversation(asked)
        began = time.perf_counter()
        verdict = self.guard.judge_output(asked, text)
        milliseconds = (time.perf_counter() - began) * 1000
        return self._judgement(verdict, bool(verdict.failures), milliseconds, [text])

    def judge_conversation(self, messages: Sequence[Mapping[str, str]]) -> Judgement:
        """Judge a conversation at input. Its score is the highest of the turns that are not the model's own."""
        began = time.perf_counter()
        verdict = self.guard.judge_input(messages)
        milliseconds = (time.perf_counter() - began) * 1000
        trusted = self.policy.file.input.trusted_roles
        turns = [message.get("content") or "" for message in messages if message.get("role") not in trusted]
        return self._judgement(verdict, bool(verdict.degraded), milliseconds, turns)

    def _judgement(
        self, verdict: InputVerdict | OutputVerdict, failed: bool, milliseconds: float, texts: Sequence[str]
    ) -> Judgement:
        closed = verdict.category == GUARD_FAILURE
        flagged = closed or any(self._makes_unsafe(finding) for finding in verdict.findings)
        score = 1.0 if closed else self._score(texts)
        return Judgement(score, flagged, verdict.action in REFUSALS, failed, milliseconds)

    def _score(self, texts: Sequence[str]) -> float:
        opinions = [text_scores(self.guard.panel, text, self.phase) for text in texts]
        suspected = [
            Finding(detector, category, score, 0, 1)
            for opinion in opinions
            for detector, scores in opinion.items()
            for category, score in scores.items()
        ]
        return max((one.score for one in suspected if self._makes_unsafe(one)), default=0.0)

    def _makes_unsafe(self, finding: Finding) -> bool:
        return self.detector is not None or self.policy.action(finding, self.phase) not in MENDING


def _unrecorded(policy: Policy) -> Policy:
    """The policy without its audit log, which is a record of what was asked in earnest."""
    return replace(policy, file=policy.file.model_copy(update={"audit": None}))


def _alone(policy: Policy, name: str, phase: str) -> Policy:
    """The policy with one of its detectors, or with one that it does not name, and no other."""
    entry = next((entry for entry in policy.file.detectors if entry.name == name), DetectorEntry(name=name))
    alone = entry.model_copy(update={"enabled": True, "phases": (phase,)})
    return replace(policy, file=policy.file.model_copy(update={"audit": None, "detectors": (alone,)}))
