"""The audit log: one JSON line per verdict, only ever appended. Without text unless the policy asks for it: hashes
and spans."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_safety.panel import Failure


class AuditLog:
    """Appends records to a file. Each record is one `write` to a file opened for appending, so that several processes
    may share it.

    Raises:
        UserError: the file cannot be opened, or a record cannot be written; a verdict that cannot be recorded is not
            given.
    """

    def __init__(self, path: Path, *, text: bool = False) -> None:
        self._path, self._text, self._lock = path, text, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

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
    ) -> None:
        """Append one verdict.

        Args:
            given: the judged text, or None where it was not kept (a streamed answer).
            delivered: what came of it.
            characters: length of the judged text.
        """
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "phase": phase,
            "policy": policy_version,
            "action": action,
            "category": category,
            "findings": [finding_record(finding) for finding in findings],
            "failures": [failure.reason for failure in failures],
            "characters": characters,
            "given_sha256": None if given is None else _hash(given),
            "delivered_sha256": _hash(delivered),
            "latency_ms": round(latency_ms, 3),
        }
        if self._text:
            line |= {"given": given, "delivered": delivered}
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode("ascii")
        try:
            with self._lock:
                written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"the audit log {self._path} cannot be written", remedy=error.strerror or str(error))


def finding_record(finding: Finding) -> Mapping[str, object]:
    """Return a finding as JSON shows it. It names no text."""
    return {
        "detector": finding.detector,
        "category": finding.category,
        "label": finding.label,
        "score": round(finding.score, 4),
        "start": finding.start,
        "end": finding.end,
        "turn": finding.turn,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
