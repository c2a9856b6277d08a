"""Exact deduplication: of documents whose normalised texts are equal only the first stays."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_trainer.data.documents import Record, read_documents, text_of, write_documents


def content_hash(text: str) -> bytes:
    """16 bytes of the SHA-256 of the text in NFC with every run of white space as one space."""
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(normalised.encode("utf-8")).digest()[:16]


def deduplicate(sources: Mapping[str, Path], work: Path) -> dict[str, dict[str, Any]]:
    """Write ``NAME.jsonl`` to `work` for each source, without what an earlier document, of any source, already said.

    Sources come in the order of the mapping: put held-out ones first, then no training document repeats one of theirs.

    Returns:
        For each source: documents and bytes left, and duplicates.

    Raises:
        UserError: a source has only duplicates.
    """
    seen: set[bytes] = set()
    statistics: dict[str, dict[str, Any]] = {}
    for name, path in sources.items():
        counts = {"documents": 0, "bytes": 0, "duplicates": 0}

        def first_ones(path: Path = path, counts: dict[str, int] = counts) -> Iterator[Record]:
            for record in read_documents(path):
                text = text_of(record)
                digest = content_hash(text)
                if digest in seen:
                    counts["duplicates"] += 1
                    continue
                seen.add(digest)
                counts["documents"] += 1
                counts["bytes"] += len(text.encode("utf-8"))
                yield record

        write_documents(work / f"{name}.jsonl", first_ones())
        if not counts["documents"]:
            raise UserError(
                f"every document of {name!r} repeats another one", where=str(path), remedy="leave the source out"
            )
        statistics[name] = counts
    return statistics
