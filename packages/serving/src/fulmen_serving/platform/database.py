"""The database of keys and usage: SQLite by default, PostgreSQL by URL. Its faults are sentences without secrets."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from fulmen_core.errors import UserError
from fulmen_serving.platform.schema import SCHEMA_VERSION, metadata, schema_versions

_BUSY_SECONDS = 30
#: The key of the advisory lock that lets one process at a time make the tables: "fulm" in ASCII.
_SCHEMA_LOCK = 0x66756C6D
#: PostgreSQL's SQLSTATE of what a role may not do (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_INSUFFICIENT_PRIVILEGE = "42501"


class DatabaseFailed(UserError):
    """The database does not answer, or not as it should."""


class Database:
    """An open database with the tables of this version, made on first use. Thread-safe.

    Args:
        place: a file of SQLite, or an SQLAlchemy URL: ``sqlite:///keys.db``, ``postgresql://user:password@host/name``.

    Raises:
        UserError: it cannot be opened, or its tables are of another version.
    """

    def __init__(self, place: str) -> None:
        url = _parse(place)
        self.name = url.render_as_string(hide_password=True)
        self._password = str(url.password or "")
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite:
            _make_file(Path(str(url.database)))
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS} if sqlite else {"connect_timeout": 10}
        try:
            # hidden parameters: an error message must not carry the hash of a key
            self.engine = create_engine(url, connect_args=arguments, hide_parameters=True, pool_pre_ping=not sqlite)
        except (SQLAlchemyError, ImportError, TypeError, ValueError):  # a driver that is missing, a query it refuses
            raise UserError(
                f"the platform database {self.name} cannot be opened",
                remedy="pip install 'fulmen-serving[postgresql]' for PostgreSQL, and check the URL",
            ) from None
        if sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        try:
            self._make_tables(sqlite)
        except UserError:
            self.close()
            raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            DatabaseFailed: it is in the name.
        """
        with self._in_words(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: whole when the block ends well, without effect when it raises.

        Raises:
            DatabaseFailed: it is in the name.
        """
        with self._in_words(), self.engine.connect() as connection:
            writing = connection.execution_options(fulmen_write=True)
            with writing.begin():
                yield writing

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self.engine.dispose()

    def _make_tables(self, sqlite: bool) -> None:
        with self.write() as connection:
            if not sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            if not inspect(connection).has_table(schema_versions.name):
                metadata.create_all(connection)
                connection.execute(schema_versions.insert().values(version=SCHEMA_VERSION))
            version = connection.execute(select(schema_versions.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise UserError(
                f"the platform database {self.name} has schema version {version}, and this Fulmen knows "
                f"{SCHEMA_VERSION}",
                remedy="use the Fulmen that made it, or another database",
            )

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            said = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
            said = " ".join(said.split())
            if self._password:
                said = said.replace(self._password, "***")
            remedy = "check that --platform names it, and that it answers"
            if getattr(getattr(error, "orig", None), "sqlstate", "") == _INSUFFICIENT_PRIVILEGE:
                remedy = "let a role that may create tables open it once, and grant this one what it needs"
            raise DatabaseFailed(f"the platform database {self.name} cannot be used ({said})", remedy=remedy) from None


def _parse(place: str) -> URL:
    if "://" not in place:
        url = URL.create("sqlite", database=str(Path(place).expanduser()) if place else None)
    else:
        try:
            url = make_url(place)
        except (ArgumentError, ValueError):
            # not echoed: what does not parse may still hold a password
            raise UserError(
                "the URL of the platform database is malformed", remedy="write e.g. postgresql://user@host/name"
            ) from None
    backend = url.drivername.partition("+")[0]
    if backend in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise UserError(
            f"the platform database cannot be {backend!r}", remedy="give a file for SQLite, or a postgresql:// URL"
        )
    if not url.database or url.database == ":memory:" or url.query:
        raise UserError("the platform database needs a file", remedy="give its path, e.g. platform.db")
    return url


def _make_file(path: Path) -> None:
    """Make the file for its owner alone: what it holds is nobody else's business."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise UserError(
            f"the platform database {path} cannot be opened ({error.strerror or error})",
            remedy="give a file in a folder that exists and can be written",
        ) from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin late and commit before DDL; see _begin_sqlite
    cursor = connection.cursor()
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:  # SQLite does not wait by itself for another who changes the mode
        try:
            cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for one another
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads before it writes must take the lock at once, or it fails when another wrote in between
    writing = connection.get_execution_options().get("fulmen_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
