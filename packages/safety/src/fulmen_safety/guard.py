"""The guard ``raise``: one policy in the four places of a model's life (report section 6)."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fulmen_core.errors import UserError
from fulmen_core.guard import DocumentVerdict, Finding, InputVerdict, OutputChunk, OutputStream
from fulmen_safety.audit.log import AuditLog
from fulmen_safety.audit.store import open_store
from fulmen_safety.conversation import conversation_language, judge_conversation
from fulmen_safety.edits import plan_edits, redacted
from fulmen_safety.hold_back import HoldBack, OutputVerdict, feed_together, judge_output
from fulmen_safety.panel import DetectorSource, Failure, Panel
from fulmen_safety.policy import STRICTNESS, Policy, load_policy
from fulmen_safety.taxonomy import taxonomy
from fulmen_safety.text_scores import category_scores


class GuardFailure(UserError):
    """A detector failed where there is nothing to fall back on: a reward without it would train the wrong objective."""


def make(policy: Path | None, registry: DetectorSource) -> RaiseGuard:
    """Load a policy file (None: the default policy) and the detectors it names.

    Raises:
        UserError: the policy is wrong, or its audit log cannot be written.
        PluginError: a detector that it names is not installed or broken.
    """
    return RaiseGuard(load_policy(policy), registry)


class RaiseGuard:
    """RAISE under one policy (`fulmen_core.guard.Guard`). Safe to use from several threads."""

    name = "raise"

    def __init__(self, policy: Policy, registry: DetectorSource, *, recorded: bool = True) -> None:
        """Load the policy's detectors, and open its audit log unless what is asked is not to be `recorded`."""
        self.policy = policy
        self.policy_version = policy.version
        self.panel = Panel(policy, registry)
        audit = policy.file.audit
        self._audit = AuditLog(open_store(audit.path, policy.folder), text=audit.text) if audit and recorded else None

    # -- RAISE-1 -------------------------------------------------------------------------------------------------------

    def judge_document(self, text: str) -> DocumentVerdict:
        """Keep, redact or drop a document of the corpus, or quarantine it unchanged because a detector failed."""
        began = time.perf_counter()
        reading = self.panel.read(text, "corpus")
        counted = tuple(finding for finding in reading.findings if self.policy.counts(finding, text))
        edits = plan_edits(
            ((finding, self.policy.action(finding, "corpus")) for finding in counted), STRICTNESS["corpus"]
        )
        dropped = next((edit for edit in edits if edit.action == "drop"), None)
        if reading.closed:
            reason = next(failure.reason for failure in reading.failures if failure.closed)
            verdict = DocumentVerdict("quarantine", text, counted, reason)
        elif dropped:
            verdict = DocumentVerdict("drop", "", counted, dropped.finding.category)
        elif edits:
            verdict = DocumentVerdict(
                "redact", redacted(text, edits, self.panel.replacement), counted, edits[0].finding.category
            )
        else:
            verdict = DocumentVerdict("keep", text, counted)
        verdict = replace(verdict, degraded=reading.degraded)
        if verdict.action != "keep" or reading.failures:  # a corpus is too large to record what is ordinary
            self._record("corpus", verdict.action, verdict.reason, counted, reading.failures, text, verdict.text, began)
        return verdict

    # -- RAISE-2 -------------------------------------------------------------------------------------------------------

    def reward_penalty(self, prompt: str, answer: str) -> float:
        """Return how harmful the answer is, in [0, 1]: the highest score times its category's weight.

        What the answer only repeats from the prompt is no disclosure: a span that also stands there does not count.

        Raises:
            GuardFailure: a detector failed that fails closed.
        """
        panel = self.panel.in_context([{"role": "user", "content": prompt}], "reward")
        reading = panel.read(answer, "reward")
        if reading.closed:
            reason = next(failure.reason for failure in reading.failures if failure.closed)
            raise GuardFailure(f"{reason}, so the reward is unknown", remedy='mend it, or set its on_error to "open"')
        penalties = [
            finding.score * self.policy.rules(finding).reward
            for finding in reading.findings
            if self.policy.counts(finding, answer) and answer[finding.start : finding.end] not in prompt
        ]
        return max(penalties, default=0.0)

    # -- RAISE-3 -------------------------------------------------------------------------------------------------------

    def judge_input(self, messages: Sequence[Mapping[str, str]]) -> InputVerdict:
        """Allow a conversation, rewrite it (personal data), or block it with a safe completion."""
        began = time.perf_counter()
        verdict, failures = judge_conversation(self.panel, self.policy, messages)
        given = _shown(messages)
        delivered = verdict.message if verdict.action == "block" else _shown(verdict.messages)
        self._record("input", verdict.action, verdict.category, verdict.findings, failures, given, delivered, began)
        return verdict

    # -- RAISE-4 -------------------------------------------------------------------------------------------------------

    def open_output(self, messages: Sequence[Mapping[str, str]]) -> HoldBack:
        """Guard one streamed answer to the conversation `messages`. It tells the language of what is said, and what was
        asked to the detectors that want to know.
        """
        began = time.perf_counter()

        def ended(verdict: OutputVerdict, characters: int) -> None:
            self._record(
                "output",
                verdict.action,
                verdict.category,
                verdict.findings,
                verdict.failures,
                None,
                verdict.text,
                began,
                characters,
                complete=verdict.complete,
            )

        panel = self.panel.in_context(messages, "output")
        return HoldBack(panel, self.policy, conversation_language(messages), ended)

    def feed_together(self, pieces: Sequence[tuple[OutputStream, str]]) -> list[OutputChunk | Exception]:
        """Feed several streams at once (`fulmen_core.guard.FeedsTogether`)."""
        return feed_together([(cast("HoldBack", stream), text) for stream, text in pieces])

    def judge_output(self, messages: Sequence[Mapping[str, str]], answer: str) -> OutputVerdict:
        """Guard a whole answer at once; equal to streaming it."""
        began = time.perf_counter()
        panel = self.panel.in_context(messages, "output")
        verdict = judge_output(panel, self.policy, answer, conversation_language(messages))
        self._record(
            "output", verdict.action, verdict.category, verdict.findings, verdict.failures, answer, verdict.text, began
        )
        return verdict

    def crosswalk(self, scheme: str) -> Mapping[str, tuple[str, ...]]:
        """Return the categories that each code of `scheme` covers; see `fulmen_safety.taxonomy`."""
        return taxonomy().crosswalk.get(scheme, {})

    def safe_completion(self, category: str, language: str) -> str:
        """Return the policy's message for a category (`fulmen_core.guard.Completes`)."""
        taxonomy().check(category, self.policy.where)
        message = self.policy.category(category).message
        return message.text(language) if message else ""

    def category_scores(self, text: str) -> Mapping[str, float]:
        """How suspect `text` is as a user's message, category by category (`fulmen_core.guard.Explains`)."""
        return category_scores(self.panel, text, "input")

    def explain(self, text: str) -> Mapping[str, Any]:
        """What each detector says of `text` and what each component would do (`fulmen_core.guard.Explains`)."""
        from fulmen_safety.explanation import as_json, explain  # it knows the guard

        unrecorded = copy.copy(self)
        unrecorded._audit = None
        return as_json(unrecorded, explain(unrecorded, text))

    def record_loss(self, reason: str) -> None:
        """Record that a process of this guard died over what it was asked (`fulmen_core.guard.RecordsLosses`)."""
        if self._audit:
            self._audit.record_loss(self.policy_version, reason)

    def _record(
        self,
        phase: str,
        action: str,
        category: str,
        findings: Sequence[Finding],
        failures: Sequence[Failure],
        given: str | None,
        delivered: str,
        began: float,
        characters: int | None = None,
        *,
        complete: bool = True,
    ) -> None:
        if self._audit:
            self._audit.record(
                phase=phase,
                policy_version=self.policy_version,
                action=action,
                category=category,
                findings=findings,
                failures=failures,
                given=given,
                delivered=delivered,
                characters=len(given or "") if characters is None else characters,
                latency_ms=(time.perf_counter() - began) * 1000,
                complete=complete,
            )


def _shown(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(f"{message.get('role', '')}: {message.get('content') or ''}" for message in messages)
