"""A record of the audit log, and how each is tied to the one before it.

A record is a JSON object. ``n`` counts from 1, ``previous`` is the hash of the record before (`GENESIS` for the first)
and ``hash`` is the SHA-256 of the record without it, in canonical form: so whoever changes, removes or moves a record
has to make every later one anew, and the head with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fulmen_core.guard import Finding

Record = dict[str, Any]

#: ``previous`` of the first record.
GENESIS = "0" * 64
#: ``phase`` of what is no verdict: a place where older records were pruned, the note of it, a torn record cut off, and
#: a process of the guard that died over what it was asked.
CHECKPOINT, PRUNE, REPAIR, LOSS = "checkpoint", "prune", "repair", "loss"


class Head(NamedTuple):
    """The last record of a log: its number and hash. What was noted elsewhere proves that nothing was cut off."""

    n: int
    hash: str

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"


#: Of an empty log.
START = Head(0, GENESIS)


def now() -> str:
    """Return the time as records hold it: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a record that is hashed and stored: keys sorted, ASCII, no blanks."""
    return json.dumps(record, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def chained(body: Mapping[str, Any], head: Head) -> Record:
    """Return `body` as the record after `head`."""
    record = {**body, "n": head.n + 1, "previous": head.hash}
    return record | {"hash": hash_of(record)}


def hash_of(record: Mapping[str, Any]) -> str:
    """Return the hash that a record should have."""
    return hashlib.sha256(canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def head_of(record: Mapping[str, Any]) -> Head:
    """Return the head that a log ending in `record` has."""
    if record.get("phase") == CHECKPOINT:
        return Head(record["n"], record["chain"])
    return Head(record["n"], record["hash"])


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text, lone surrogates included."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
