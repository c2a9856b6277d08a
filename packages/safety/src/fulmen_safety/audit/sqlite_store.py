"""Records in a table of SQLite, which refuses to change or remove them; the head is noted in a table beside it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fulmen_safety.audit.sql_store import SqlStore
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


class SqliteStore(SqlStore):
    """See the module, and `AuditStore`.

    Raises:
        AuditUnwritable: the file cannot be opened, or is no database.
    """

    placeholder = "?"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._transaction():
                pass
        except OSError as error:
            raise unwritable(self.name, error) from error

    def _delete(self, connection: sqlite3.Connection, n: int) -> None:
        connection.execute("DROP TRIGGER fulmen_audit_no_delete")
        super()._delete(connection, n)
        connection.execute(f"CREATE TRIGGER fulmen_audit_no_delete BEFORE DELETE ON fulmen_audit {_NO_CHANGE}")

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
        if self._connection is not None and self._process == os.getpid():
            return self._connection  # type: ignore[no-any-return]
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection, self._process = connection, os.getpid()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")
        return connection
