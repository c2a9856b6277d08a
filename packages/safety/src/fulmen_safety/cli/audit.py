"""`fulmen raise audit verify`, `prune` and `show`."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, output
from fulmen_core.errors import UserError
from fulmen_safety.audit.chain import verify
from fulmen_safety.audit.pruning import duration, prune
from fulmen_safety.audit.record import Head
from fulmen_safety.audit.store import AuditStore, open_store
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.policy import load_policy
from fulmen_safety.policy_file import AuditPolicy


def run(argv: Sequence[str]) -> int:
    """Verify a log, remove what is old, or show its last records. `verify` returns 1 if the log is not whole.

    Raises:
        UserError: wrong arguments, there is no log, or it cannot be read or written.
    """
    parser = arguments.parser("fulmen raise audit", "verify, prune or show an audit log", recipe=False)
    parser.add_argument("verb", choices=("verify", "prune", "show"))
    parser.add_argument("place", nargs="?", help="a file or a postgresql:// URL; default: the policy's")
    add_policy(parser)
    parser.add_argument("--head", metavar="N:HASH", help="verify: a head that was noted elsewhere")
    parser.add_argument(
        "--older-than", metavar="90d", help="prune: in hours, days or weeks; default: the policy's keep"
    )
    parser.add_argument("--last", type=int, default=20, metavar="N", help="show: how many records")
    options = parser.parse_args(argv)
    place, folder, audit = _place(options)
    store = open_store(place, folder, make=False)
    try:
        if options.verb == "verify":
            return _verify(store, _head(options.head), json=options.json)
        if options.verb == "prune":
            return _prune(store, options.older_than or (audit.keep if audit else ""), json=options.json)
        return _show(store, options.last, json=options.json)
    finally:
        store.close()


def _place(options: Namespace) -> tuple[str, Path, AuditPolicy | None]:
    if options.place is not None:
        return options.place, Path(), None
    policy = load_policy(given_policy(options))
    if policy.file.audit is None:
        raise UserError("the policy keeps no audit log", where=policy.where, remedy="name a log, or add [audit]")
    return policy.file.audit.path, policy.folder, policy.file.audit


def _head(given: str | None) -> Head | None:
    if given is None:
        return None
    n, colon, digest = given.partition(":")
    if not (n.isdigit() and colon and len(digest) == 64):
        raise UserError(f"{given!r} is no head", where="--head", remedy="give what `verify` printed: NUMBER:HASH")
    return Head(int(n), digest)


def _verify(store: AuditStore, known: Head | None, *, json: bool) -> int:
    report = verify(store, known)
    if json:
        output.print_json(
            {
                "intact": not report.faults,
                "records": report.records,
                "pruned": report.pruned,
                "head": str(report.head),
                "faults": list(report.faults),
            }
        )
    else:
        for fault in report.faults:
            print(f"broken: {fault}")
        state = "broken" if report.faults else "whole"
        print(f"{store.name}: {state}, {report.records} records, {report.pruned} pruned, head {report.head}")
    return int(bool(report.faults))


def _prune(store: AuditStore, older_than: str, *, json: bool) -> int:
    if not older_than:
        raise UserError("it is not said how old a record must be", remedy="give --older-than 90d, or the policy a keep")
    removed = prune(store, duration(older_than))
    if json:
        output.print_json({"removed": removed, "head": str(verify(store).head)})
    else:
        print(f"{store.name}: {removed} records older than {older_than} removed")
    return 0


def _show(store: AuditStore, last: int, *, json: bool) -> int:
    records: deque[Any] = deque((one for one in store.records() if not isinstance(one, str)), maxlen=max(1, last))
    if json:
        output.print_json(list(records))
        return 0
    rows = [
        (
            str(one["n"]),
            one["time"],
            one["phase"],
            one.get("action", ""),
            one.get("category", ""),
            ", ".join(dict.fromkeys(f"{found['detector']} {found['label']}" for found in one.get("findings", ()))),
            "; ".join(one.get("failures", ())),
        )
        for one in records
    ]
    output.print_table(("n", "time", "phase", "action", "category", "found", "failed"), rows, empty="no record")
    return 0
