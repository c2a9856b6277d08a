"""Brings an index up to date with its documents: what did not change is kept, what is gone is dropped.

The work is done in a copy that takes the old file's place at the end, so that whoever searches meanwhile searches the
old one, and whatever goes wrong leaves it as it was.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_file
from fulmen_tool_retrieval.chunking import ChunkSizes, chunk_spans
from fulmen_tool_retrieval.documents import Document
from fulmen_tool_retrieval.embedder import Embedder
from fulmen_tool_retrieval.hashed_ngrams import HashedNgrams
from fulmen_tool_retrieval.index_file import counts, create, open_for_writing, open_index, read_meta, write_meta
from fulmen_tool_retrieval.terms import terms_of

#: The hashed embedder's frequencies are counted again, and all its vectors made again, once the number of chunks
#: differs by this share from when they were counted.
REFIT = 0.1

_BATCH = 256


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How to index. An index keeps the options it was made with; others need a fresh one.

    Attributes:
        sizes: of chunks.
        embedder: None for full text alone, "hashed", or a remote embedder.
    """

    sizes: ChunkSizes = field(default_factory=ChunkSizes)
    embedder: Embedder | str | None = "hashed"


@dataclass(slots=True)
class IndexReport:
    """What was done, in documents, and what the index holds now."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    embedded: int = 0  # chunks whose vectors were made
    documents: int = 0
    chunks: int = 0
    characters: int = 0


def update_index(
    path: Path, documents: Iterable[Document], options: IndexOptions, *, fresh: bool = False
) -> IndexReport:
    """Make `path` the index of exactly `documents`.

    Args:
        path: the index; made if it is not there.
        documents: with distinct sources.
        options: how; must be those of an index that is there.
        fresh: forget what is there.

    Raises:
        UserError: the options differ from the index's, the file cannot be written, or a document or the embedder is at
            fault. The index is then as it was.
        CorruptArtefact: the file is no index, or damaged.
    """
    old = path.is_file() and not fresh
    if old:
        with contextlib.closing(open_index(path)) as before:
            _check_options(before, path, options)
    report = IndexReport()
    with atomic_file(path) as work:
        if old:
            shutil.copyfile(path, work)
        connection = open_for_writing(work) if old else create(work)
        with contextlib.closing(connection), connection:
            if not old:
                write_meta(connection, "options", _described(options))
            added = _update_documents(connection, documents, options.sizes, report)
            report.embedded = _update_vectors(connection, added, options.embedder)
            connection.execute("INSERT INTO chunk_terms (chunk_terms) VALUES ('optimize')")
            held = counts(connection)
        report.documents, report.chunks, report.characters = held["documents"], held["chunks"], held["characters"]
    return report


def _described(options: IndexOptions) -> dict[str, Any]:
    embedder = options.embedder
    identity = {"kind": embedder} if embedder is None or isinstance(embedder, str) else dict(embedder.identity())
    return {"chunks": asdict(options.sizes), "embedder": identity}


def _check_options(connection: sqlite3.Connection, path: Path, options: IndexOptions) -> None:
    there, wanted = read_meta(connection, "options"), _described(options)
    if there != wanted:
        different = next(key for key in wanted if there.get(key) != wanted[key])
        raise UserError(
            f"the index was made with {different} {there.get(different)}, not {wanted[different]}",
            where=str(path),
            remedy="leave the option as it was, or give --fresh to make the index anew",
        )


def _update_documents(
    connection: sqlite3.Connection, documents: Iterable[Document], sizes: ChunkSizes, report: IndexReport
) -> list[int]:
    """Drop, replace and add documents; return the ids of the chunks that are new."""
    known = {
        source: (id, digest) for id, source, digest in connection.execute("SELECT id, source, digest FROM documents")
    }
    added: list[int] = []
    for document in documents:
        id, digest = known.pop(document.source, (None, ""))
        if digest == document.digest:
            report.unchanged += 1
            continue
        if id is None:
            report.added += 1
        else:
            report.changed += 1
            _drop(connection, id)
        added += _add(connection, document, sizes)
    for id, _ in known.values():
        _drop(connection, id)
    report.removed = len(known)
    return added


def _add(connection: sqlite3.Connection, document: Document, sizes: ChunkSizes) -> list[int]:
    text = document.text
    try:
        row = (document.source, document.title, document.digest, len(text))
        id = connection.execute(
            "INSERT INTO documents (source, title, digest, characters) VALUES (?, ?, ?, ?)", row
        ).lastrowid
        chunks = []
        for span in chunk_spans(text, sizes):
            passage = text[span.start : span.end]
            chunk = connection.execute(
                'INSERT INTO chunks (document, start, "end", text) VALUES (?, ?, ?, ?)',
                (id, span.start, span.end, passage),
            ).lastrowid
            terms = terms_of(f"{document.title}\n{passage}")  # a title tells what its passages are about
            connection.execute("INSERT INTO chunk_terms (rowid, terms) VALUES (?, ?)", (chunk, terms))
            chunks.append(int(chunk or 0))
    except UnicodeEncodeError as error:  # a lone surrogate from JSON
        raise UserError("the text is no valid Unicode", where=document.source, remedy="mend its source") from error
    return chunks


def _drop(connection: sqlite3.Connection, document: int) -> None:
    for table, key in (("chunk_terms", "rowid"), ("vectors", "chunk")):
        connection.execute(
            f"DELETE FROM {table} WHERE {key} IN (SELECT id FROM chunks WHERE document = ?)", (document,)
        )
    connection.execute("DELETE FROM chunks WHERE document = ?", (document,))
    connection.execute("DELETE FROM documents WHERE id = ?", (document,))


def _update_vectors(connection: sqlite3.Connection, added: list[int], embedder: Embedder | str | None) -> int:
    """Make the vectors that are missing, or all of them where the frequencies no longer fit; return how many."""
    if embedder is None:
        return 0
    if isinstance(embedder, str):
        embedder, refitted = _hashed(connection)
        if refitted:
            connection.execute("DELETE FROM vectors")
            added = [id for (id,) in connection.execute("SELECT id FROM chunks ORDER BY id")]
    for at in range(0, len(added), _BATCH):
        batch = added[at : at + _BATCH]
        vectors_ND = embedder.embed_documents(_texts(connection, batch)).astype(np.float16)
        rows = [(id, vector_D.tobytes()) for id, vector_D in zip(batch, vectors_ND, strict=True)]
        connection.executemany("INSERT INTO vectors VALUES (?, ?)", rows)
    return len(added)


def _hashed(connection: sqlite3.Connection) -> tuple[HashedNgrams, bool]:
    """The hashed embedder of the index, and whether its frequencies had to be counted anew."""
    now = counts(connection)["chunks"]
    fitted = read_meta(connection, "fitted_chunks")
    if fitted is not None and abs(now - fitted) <= REFIT * fitted:
        stored = connection.execute("SELECT value FROM meta WHERE key = 'frequencies'").fetchone()
        return HashedNgrams.load(stored[0]), False
    ids = [id for (id,) in connection.execute("SELECT id FROM chunks ORDER BY id")]
    embedder = HashedNgrams.fit(_texts(connection, ids))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('frequencies', ?)", (embedder.dump(),))
    write_meta(connection, "fitted_chunks", now)
    return HashedNgrams.load(embedder.dump()), True  # as it will be read, so that equal texts get equal vectors


def _texts(connection: sqlite3.Connection, chunks: Sequence[int]) -> list[str]:
    """What is embedded of each chunk: its document's title and its text."""
    statement = (
        "SELECT d.title || char(10) || c.text FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?"
    )
    return [connection.execute(statement, (id,)).fetchone()[0] for id in chunks]
