"""Whether a log is whole: nothing altered, removed, moved, cut off or put in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from fulmen_safety.audit.record import CHECKPOINT, PRUNE, START, Head, Record, hash_of, head_of
from fulmen_safety.audit.store import AuditStore


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What was found.

    Args:
        records: how many there are.
        pruned: how many a checkpoint stands for.
        head: of the last record. Noted elsewhere, it proves later that nothing was cut off the end.
        faults: a sentence for each break; none if the log is whole.
    """

    records: int
    pruned: int
    head: Head
    faults: tuple[str, ...]


def verify(store: AuditStore, known: Head | None = None) -> ChainReport:
    """Read every record of `store` and check that each follows the one before.

    Args:
        store: the log.
        known: a head that the log had at some time, noted elsewhere. Without one, whoever can write to the log and
            to what is noted beside it can cut records off its end, or make the chain anew, unseen.
    """
    faults: list[str] = []
    head, count, pruned = START, 0, 0
    checkpoint: Record | None = None
    confirmed = known is None or known == START
    noted = store.noted_head()
    stream = _records(store, faults)
    first = next(stream, None)
    if first is not None and first.get("phase") == CHECKPOINT:
        checkpoint, head, pruned = first, head_of(first), first["pruned"]
        count += 1
        if first.get("hash") != hash_of(first):
            faults.append("the checkpoint was altered")
        confirmed = confirmed or head == known
    elif first is not None:
        stream = chain([first], stream)
    named: set[str] = set()
    for record in stream:
        count += 1
        faults += _broken(record, head)
        head = head_of(record)
        confirmed = confirmed or head == known
        if record.get("phase") == PRUNE:
            named.add(record["checkpoint"])
    if checkpoint is not None and checkpoint.get("hash") not in named:
        faults.append("no record says that the log was pruned to its checkpoint")
    if noted is not None and noted.n > head.n:
        faults.append(f"the log ends at record {head.n} and had {noted.n}: its end was cut off")
    elif noted is not None and noted.n == head.n and noted.hash != head.hash:
        faults.append(f"record {head.n} is not the one that was kept: the chain was made anew")
    elif noted is None and count:
        faults.append("the head that is noted beside the records is missing or broken")
    if not confirmed and known is not None and known.n > (checkpoint["n"] if checkpoint else 0):
        faults.append(f"the head {known} that was noted elsewhere is not in the log")
    return ChainReport(count, pruned, head, tuple(faults))


def _records(store: AuditStore, faults: list[str]) -> Iterator[Record]:
    for record in store.records():
        if isinstance(record, str):
            faults.append(record)
        elif not isinstance(record.get("n"), int) or not isinstance(record.get("hash"), str):
            faults.append("there is a record without number or hash")
        else:
            yield record


def _broken(record: Record, head: Head) -> Iterator[str]:
    n = record["n"]
    if record["hash"] != hash_of(record):
        yield f"record {n} was altered"
    if n != head.n + 1:
        what = "is missing" if n == head.n + 2 else "are missing"
        between = f"{head.n + 1}" if n == head.n + 2 else f"{head.n + 1} to {n - 1}"
        yield f"record {between} {what}" if n > head.n else f"record {n} stands after record {head.n}"
    elif record.get("previous") != head.hash:
        yield f"record {n} does not follow record {head.n} as that stands here"
