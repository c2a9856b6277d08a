"""Records in a table of SQLite, which refuses to change or remove them; the head is noted in a table beside it."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fulmen_safety.audit.record import START, Head, Record, canonical, chained, head_of
from fulmen_safety.audit.store import unwritable

#: How long a process waits for another that writes.
_BUSY_SECONDS = 30.0
_NO_CHANGE = "BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS fulmen_audit (n INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fulmen_audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER, hash TEXT);
CREATE TRIGGER IF NOT EXISTS fulmen_audit_no_update BEFORE UPDATE ON fulmen_audit {_NO_CHANGE};
CREATE TRIGGER IF NOT EXISTS fulmen_audit_no_delete BEFORE DELETE ON fulmen_audit {_NO_CHANGE};
"""


class SqliteStore:
    """See the module, and `AuditStore`.

    Raises:
        AuditUnwritable: the file cannot be opened, or is no database.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path, self._lock = path, threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._transaction():
                pass
        except OSError as error:
            raise unwritable(self.name, error) from error

    def append(self, body: Mapping[str, Any]) -> Record:
        """See `AuditStore`."""
        with self._transaction() as connection:
            last = connection.execute("SELECT record FROM fulmen_audit ORDER BY n DESC LIMIT 1").fetchone()
            record = chained(body, START if last is None else head_of(json.loads(last[0])))
            _insert(connection, record)
            connection.execute(
                "INSERT OR REPLACE INTO fulmen_audit_head VALUES (1, ?, ?)", (record["n"], record["hash"])
            )
            return record

    def records(self) -> Iterator[Record | str]:
        """See `AuditStore`."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT n, record FROM fulmen_audit ORDER BY n").fetchall()
        for n, text in rows:
            try:
                record = json.loads(text)
            except ValueError:
                record = None
            yield record if isinstance(record, dict) else f"row {n} is no record"

    def noted_head(self) -> Head | None:
        """See `AuditStore`."""
        with self._transaction() as connection:
            row = connection.execute("SELECT n, hash FROM fulmen_audit_head").fetchone()
        return None if row is None else Head(*row)

    def replace_before(self, n: int, checkpoint: Record) -> None:
        """See `AuditStore`."""
        with self._transaction() as connection:
            connection.execute("DROP TRIGGER fulmen_audit_no_delete")
            connection.execute("DELETE FROM fulmen_audit WHERE n <= ?", (n,))
            _insert(connection, checkpoint)
            connection.execute(f"CREATE TRIGGER fulmen_audit_no_delete BEFORE DELETE ON fulmen_audit {_NO_CHANGE}")

    def close(self) -> None:
        """See `AuditStore`."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction that may write, whole or without effect."""
        try:
            with self._lock:
                connection = self._connected()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise unwritable(self.name, error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # a connection does not survive a fork
            self._connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._process = os.getpid()
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")
        return self._connection


def _insert(connection: sqlite3.Connection, record: Record) -> None:
    connection.execute("INSERT INTO fulmen_audit VALUES (?, ?)", (record["n"], canonical(record).decode("ascii")))
