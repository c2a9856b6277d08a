"""Records in a table of PostgreSQL, for several servers at once. ``pip install 'fulmen-safety[postgresql]'``.

A role that may only SELECT and INSERT on ``fulmen_audit`` (and UPDATE ``fulmen_audit_head``) cannot change the log; a
role that also owns the tables makes them and prunes. A password is not written into a policy: libpq takes it from
PGPASSWORD, PGPASSFILE or the service file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fulmen_core.errors import UserError
from fulmen_safety.audit.record import START, Head, Record, canonical, chained, head_of
from fulmen_safety.audit.store import unwritable

#: Of the advisory lock under which one record is chained at a time: "audt" in ASCII.
_LOCK = 0x61756474
_CONNECT_SECONDS = 10


class PostgresqlStore:
    """See the module, and `AuditStore`.

    Raises:
        UserError: psycopg is not installed.
        AuditUnwritable: the database does not answer, or the tables cannot be made.
    """

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            remedy = "pip install 'fulmen-safety[postgresql]'"
            raise UserError("an audit log in PostgreSQL needs psycopg", remedy=remedy) from None
        self._psycopg, self._url, self._lock = psycopg, url, threading.Lock()
        self.name = _without_password(url)
        self._connection: Any = None
        self._process = 0
        with self._transaction() as connection:
            made = connection.execute("SELECT to_regclass('fulmen_audit')").fetchone()
            if made[0] is None:
                connection.execute("CREATE TABLE fulmen_audit (n BIGINT PRIMARY KEY, record TEXT NOT NULL)")
                connection.execute(
                    "CREATE TABLE fulmen_audit_head (one INT PRIMARY KEY CHECK (one = 1), n BIGINT, hash TEXT)"
                )

    def append(self, body: Mapping[str, Any]) -> Record:
        """See `AuditStore`."""
        with self._transaction() as connection:
            last = connection.execute("SELECT record FROM fulmen_audit ORDER BY n DESC LIMIT 1").fetchone()
            record = chained(body, START if last is None else head_of(json.loads(last[0])))
            _insert(connection, record)
            connection.execute(
                "INSERT INTO fulmen_audit_head VALUES (1, %s, %s) "
                "ON CONFLICT (one) DO UPDATE SET n = excluded.n, hash = excluded.hash",
                (record["n"], record["hash"]),
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
            connection.execute("DELETE FROM fulmen_audit WHERE n <= %s", (n,))
            _insert(connection, checkpoint)

    def close(self) -> None:
        """See `AuditStore`."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """One transaction that nobody else chains a record beside."""
        try:
            with self._lock:
                connection = self._connected()
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                    yield connection
        except self._psycopg.Error as error:
            raise unwritable(self.name, error) from None

    def _connected(self) -> Any:
        if self._connection is not None and self._process == os.getpid() and not self._connection.closed:
            with suppress(self._psycopg.OperationalError):  # the server may have been restarted
                self._connection.execute("SELECT 1")
                return self._connection
        connection = self._psycopg.connect(self._url, connect_timeout=_CONNECT_SECONDS, autocommit=True)
        self._connection, self._process = connection, os.getpid()
        return connection


def _insert(connection: Any, record: Record) -> None:
    values = (record["n"], canonical(record).decode("ascii"))
    connection.execute("INSERT INTO fulmen_audit VALUES (%s, %s)", values)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + host, query=""))
