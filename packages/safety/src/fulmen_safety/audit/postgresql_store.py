"""Records in a table of PostgreSQL, for several servers at once. ``pip install 'fulmen-safety[postgresql]'``.

A role that may only SELECT and INSERT on ``fulmen_audit`` (and UPDATE ``fulmen_audit_head``) cannot change the log; a
role that also owns the tables makes them and prunes. A password is not written into a policy: libpq takes it from
PGPASSWORD, PGPASSFILE or the service file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fulmen_core.errors import UserError
from fulmen_safety.audit.sql_store import SqlStore
from fulmen_safety.audit.store import unwritable

#: Of the advisory lock under which one record is chained at a time: "audt" in ASCII.
_LOCK = 0x61756474
_CONNECT_SECONDS = 10


class PostgresqlStore(SqlStore):
    """See the module, and `AuditStore`.

    Raises:
        UserError: psycopg is not installed.
        AuditUnwritable: the database does not answer, or the tables cannot be made.
    """

    placeholder = "%s"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            remedy = "pip install 'fulmen-safety[postgresql]'"
            raise UserError("an audit log in PostgreSQL needs psycopg", remedy=remedy) from None
        self._psycopg, self._url, self._lock = psycopg, url, threading.Lock()
        self.name = _without_password(url)
        with self._transaction() as connection:
            made = connection.execute("SELECT to_regclass('fulmen_audit')").fetchone()
            if made[0] is None:
                connection.execute("CREATE TABLE fulmen_audit (n BIGINT PRIMARY KEY, record TEXT NOT NULL)")
                connection.execute(
                    "CREATE TABLE fulmen_audit_head (one INT PRIMARY KEY CHECK (one = 1), n BIGINT, hash TEXT)"
                )

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


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + host, query=""))
