"""What keeps the records of an audit log, and which one a policy's ``path`` means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from fulmen_core.errors import UserError
from fulmen_safety.audit.record import Head, Record

_SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3")


class AuditUnwritable(UserError):
    """A record cannot be kept. A verdict that cannot be recorded is not given."""


class AuditStore(Protocol):
    """Keeps records in order. Safe to use from several threads and processes at once; a fork is noticed.

    Attributes:
        name: as sentences name it, without a password.
    """

    name: str

    def append(self, body: Mapping[str, Any]) -> Record:
        """Chain `body` to the last record, keep it, and return it.

        Raises:
            AuditUnwritable: it was not kept.
        """
        ...

    def records(self) -> Iterator[Record | str]:
        """Yield every record in order; of what is no record, a sentence that says so."""
        ...

    def noted_head(self) -> Head | None:
        """Return the head that was noted beside the records when the last one was kept; None if none was."""
        ...

    def replace_before(self, n: int, checkpoint: Record) -> None:
        """Put `checkpoint` in place of every record numbered up to `n`, in one step.

        Raises:
            AuditUnwritable: nothing was changed.
        """
        ...

    def close(self) -> None:
        """Let go of what is open. Idempotent."""
        ...


def open_store(place: str, folder: Path, *, make: bool = True) -> AuditStore:
    """Open the store that `place` names.

    Args:
        place: ``postgresql://USER@HOST/NAME``; a file that ends in .db, .sqlite or .sqlite3; or any other file, which
            holds JSON Lines.
        folder: that a file is relative to.
        make: whether to make it if it is not there.

    Raises:
        UserError: it cannot be opened, or is not there.
    """
    if "://" in place:
        if not place.startswith(("postgresql://", "postgres://")):
            raise UserError(
                f"an audit log cannot be kept at {place.partition('://')[0]}://",
                remedy="give a file, or a postgresql:// URL",
            )
        from fulmen_safety.audit.postgresql_store import PostgresqlStore

        return PostgresqlStore(place)
    path = folder / place
    if not make and not path.exists():
        raise UserError(f"there is no audit log {path}", remedy="check the path")
    if path.suffix in _SQLITE_ENDINGS:
        from fulmen_safety.audit.sqlite_store import SqliteStore

        return SqliteStore(path)
    from fulmen_safety.audit.jsonl_store import JsonlStore

    return JsonlStore(path)


def unwritable(name: str, error: Exception) -> AuditUnwritable:
    """Return the sentence for a record that was not kept."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return AuditUnwritable(f"the audit log {name} cannot be written", remedy=reason)
