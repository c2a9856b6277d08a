"""The index: one SQLite file with documents, chunks, their terms (FTS5) and their vectors.

Read-only once written: a new state of the index is a new file that takes the old one's place.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_tool_retrieval.terms import TOKENIZER

#: Marks the file as ours (PRAGMA application_id): "FuRe".
APPLICATION_ID = 0x46755265
VERSION = 1

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, title TEXT NOT NULL, digest TEXT NOT NULL,
    characters INTEGER NOT NULL
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents, start INTEGER NOT NULL,
    "end" INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX chunks_by_document ON chunks (document);
CREATE VIRTUAL TABLE chunk_terms USING fts5 (terms, tokenize = '{TOKENIZER}');
CREATE TABLE vectors (chunk INTEGER PRIMARY KEY, vector BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


def create(path: Path) -> sqlite3.Connection:
    """Make an empty index in the empty file `path` and open it for writing."""
    connection = _connect(f"file:{quote(str(path))}")
    connection.executescript(_SCHEMA)
    return connection


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a copy that nobody else reads."""
    connection = _connect(f"file:{quote(str(path))}")
    with reading(path):
        _check(connection)
    return connection


def open_index(path: Path) -> sqlite3.Connection:
    """Open an index to read it, from any thread.

    Raises:
        UserError: there is none, or it cannot be read.
        CorruptArtefact: the file is no index, or damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no index {path}", remedy=f"make one: fulmen retrieval index FOLDER --to {path}")
    with reading(path):
        connection = _connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1")
        try:
            _check(connection)
        except BaseException:
            connection.close()
            raise
    return connection


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into one sentence."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise CorruptArtefact(
            f"the index {path} is damaged or no index ({error})", remedy="make it again with `fulmen retrieval index`"
        ) from error


def read_meta(connection: sqlite3.Connection, key: str) -> Any:
    """A JSON value of the index."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])


def write_meta(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Set a JSON value of the index."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False)))


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many documents, chunks, and characters of documents the index holds."""
    documents, characters = connection.execute(
        "SELECT count(*), coalesce(sum(characters), 0) FROM documents"
    ).fetchone()
    return {
        "documents": documents,
        "chunks": connection.execute("SELECT count(*) FROM chunks").fetchone()[0],
        "characters": characters,
    }


def documents_of(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Every document with its title, its characters and its number of chunks, by source."""
    statement = (
        "SELECT source, title, characters, (SELECT count(*) FROM chunks WHERE document = documents.id) FROM documents "
        "ORDER BY source"
    )
    names = ("source", "title", "characters", "chunks")
    return [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]


def check_whole(connection: sqlite3.Connection) -> None:
    """Read the whole file and compare its indices with its tables.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")  # an index may come from somebody else
    return connection


def _check(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise sqlite3.DatabaseError("another program's file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise sqlite3.DatabaseError(f"its format is {version}, and this version reads {VERSION}")
