"""What every database does with the records of an audit log: a table of them, and the head in a table beside it."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from fulmen_safety.audit.record import START, Head, Record, canonical, chained, head_of


class SqlStore(ABC):
    """An `AuditStore` over connections that know `execute`. A subclass opens them.

    Attributes:
        placeholder: what stands for a value in the database's statements.
    """

    placeholder: str
    _connection: Any = None
    _process = 0  # whose connection it is: none survives a fork

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """One transaction, whole or without effect, that nobody else chains a record beside; gives its connection."""

    def append(self, body: Mapping[str, Any]) -> Record:
        """See `AuditStore`."""
        with self._transaction() as connection:
            last = connection.execute("SELECT record FROM fulmen_audit ORDER BY n DESC LIMIT 1").fetchone()
            record = chained(body, START if last is None else head_of(json.loads(last[0])))
            self._insert(connection, record)
            connection.execute(
                f"INSERT INTO fulmen_audit_head VALUES (1, {self.placeholder}, {self.placeholder}) "
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
            self._delete(connection, n)
            self._insert(connection, checkpoint)

    def close(self) -> None:
        """See `AuditStore`."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _delete(self, connection: Any, n: int) -> None:
        connection.execute(f"DELETE FROM fulmen_audit WHERE n <= {self.placeholder}", (n,))

    def _insert(self, connection: Any, record: Record) -> None:
        values = (record["n"], canonical(record).decode("ascii"))
        connection.execute(f"INSERT INTO fulmen_audit VALUES ({self.placeholder}, {self.placeholder})", values)
