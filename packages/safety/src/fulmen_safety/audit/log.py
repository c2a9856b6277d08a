"""What is written down of a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fulmen_core.guard import Finding
from fulmen_safety.audit.record import LOSS, finding_record, now, text_hash
from fulmen_safety.audit.store import AuditStore
from fulmen_safety.seat import Failure


class AuditLog:
    """Records verdicts in a store, whose errors it passes on: a verdict that cannot be recorded is not given.

    Args:
        store: where.
        text: whether to record what was judged and delivered, and not only hashes and spans.
    """

    def __init__(self, store: AuditStore, *, text: bool = False) -> None:
        self.store, self._text = store, text

    def record(
        self,
        *,
        phase: str,
        policy_version: str,
        action: str,
        category: str,
        findings: Iterable[Finding],
        failures: Iterable[Failure],
        given: str | None,
        delivered: str,
        characters: int,
        latency_ms: float,
        complete: bool = True,
    ) -> None:
        """Append one verdict.

        Args:
            given: the judged text, or None where it was not kept (a streamed answer).
            delivered: what came of it.
            characters: length of the judged text.
            latency_ms: from the beginning of the judgement to its end; of a stream, of the whole answer.
            complete: False for a streamed answer that nobody read to its end.
        """
        failures = list(failures)
        body: dict[str, Any] = {
            "time": now(),
            "phase": phase,
            "policy": policy_version,
            "action": action,
            "category": category,
            "findings": [finding_record(finding) for finding in findings],
            "failures": [failure.reason for failure in failures],
            "failed_closed": any(failure.closed for failure in failures),
            "characters": characters,
            "complete": complete,
            "given_sha256": None if given is None else text_hash(given),
            "delivered_sha256": text_hash(delivered),
            "latency_ms": round(latency_ms, 3),
        }
        if self._text:
            body |= {"given": given, "delivered": delivered}
        self.store.append(body)

    def record_loss(self, policy_version: str, reason: str) -> None:
        """Append that a process of the guard died over what it was asked."""
        body = {"time": now(), "phase": LOSS, "policy": policy_version, "failures": [reason], "failed_closed": True}
        self.store.append(body)
