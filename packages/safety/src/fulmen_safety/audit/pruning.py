"""Retention: records older than a time go, and the chain stays verifiable."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fulmen_core.errors import UserError
from fulmen_safety.audit.record import CHECKPOINT, PRUNE, Record, hash_of, head_of, now
from fulmen_safety.audit.store import AuditStore

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """Return what ``"90d"``, ``"12h"`` or ``"26w"`` means.

    Raises:
        UserError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if not found:
        raise UserError(f"{text!r} is no duration", remedy="write hours, days or weeks: 12h, 90d, 26w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def prune(store: AuditStore, older_than: timedelta) -> int:
    """Remove the records older than that, up to the first that is younger, and return how many.

    A checkpoint takes their place: it holds the hash of the last one, so that the next still follows. A record at the
    end of the chain says what was removed and names the checkpoint, so that none can be put in by somebody else.
    """
    limit = datetime.now(UTC) - older_than
    old: Record | None = None
    count, earlier = 0, 0
    for record in store.records():
        if isinstance(record, str):
            raise UserError(
                f"the audit log {store.name} is broken: {record}",
                remedy="see `fulmen raise audit verify` before anything is removed from it",
            )
        if record.get("phase") == CHECKPOINT:
            earlier, old = record["pruned"], record
            continue
        if datetime.fromisoformat(record["time"]) >= limit:
            break
        old, count = record, count + 1
    if old is None or not count:
        return 0
    head = head_of(old)
    checkpoint: Record = {
        "time": now(),
        "phase": CHECKPOINT,
        "n": head.n,
        "chain": head.hash,
        "pruned": earlier + count,
        "until": old["time"],
    }
    checkpoint["hash"] = hash_of(checkpoint)
    # first the note, then the removal: a process that dies between the two leaves a log that is whole
    note = {"time": now(), "phase": PRUNE, "checkpoint": checkpoint["hash"], "pruned": count, "until": old["time"]}
    store.append(note)
    store.replace_before(head.n, checkpoint)
    return count
