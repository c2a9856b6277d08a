"""Documents and instructions on disk between the steps of the pipeline: one JSON object a line.

A document is ``{"text", ...}``, an instruction ``{"messages", ...}``; other keys travel along untouched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fulmen_core.errors import PluginError, UserError
from fulmen_core.tokenizer.byte_level import check_encodable
from fulmen_trainer.records import checked_messages, read_records

log = logging.getLogger(__name__)

Record = dict[str, Any]

#: How many faults of a source are spelled out in the manifest; the rest are counted.
FAULTS_KEPT = 5


def text_of(record: Mapping[str, Any]) -> str:
    """What a guard judges and deduplication compares: the text, or the contents of the messages line by line."""
    if "messages" in record:
        return "\n".join(message["content"] for message in record["messages"])
    return str(record["text"])


def read_documents(path: Path) -> Iterator[Record]:
    """Yield the records of a file that `write_documents` made."""
    return (record for _, record in read_records(path))


def write_documents(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records; return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def collect(source: str, items: Iterable[Mapping[str, object]], path: Path) -> dict[str, Any]:
    """Write what a source yields, checked, to `path`.

    Args:
        source: the source's name in the recipe, for sentences.
        items: documents, instructions, and faults (``{"fault": sentence}``, what the source had to leave out).
        path: the JSON Lines file to write.

    Returns:
        Counts: documents, bytes (UTF-8, of the texts), empty, unreadable; and the first faults.

    Raises:
        UserError: the source yields no document, or an item that is neither document nor instruction.
        PluginError: the source raised something else.
    """
    counts = {"documents": 0, "bytes": 0, "empty": 0, "unreadable": 0}
    faults: list[str] = []

    def kept() -> Iterator[Record]:
        for record in checked_records(source, items):
            if "fault" in record:
                counts["unreadable"] += 1
                faults.append(str(record["fault"]))
                continue
            text = text_of(record)
            if not text.strip():
                counts["empty"] += 1
                continue
            counts["documents"] += 1
            counts["bytes"] += len(text.encode("utf-8"))
            yield record

    write_documents(path, kept())
    if not counts["documents"]:
        raise UserError(
            f"the corpus is empty: {source!r} gave no document",
            where=f"[sources.{source}]",
            remedy=faults[0] if faults else "check the settings of the source",
        )
    return {**counts, "faults": faults[:FAULTS_KEPT]}


def checked_records(source: str, items: Iterable[Mapping[str, object]]) -> Iterator[Record]:
    """Yield a source's items after checking that each is a document, an instruction or a fault; faults are logged.

    Raises:
        UserError: an item is none of these, or has a lone surrogate.
        PluginError: the source raised something else.
    """
    for number, item in enumerate(_named_faults(source, items)):
        if "fault" in item:
            log.warning("%s: left out: %s", source, item["fault"])
            yield dict(item)
        else:
            yield _checked_record(item, f"item {number} of {source}")


def _named_faults(source: str, items: Iterable[Mapping[str, object]]) -> Iterator[Mapping[str, object]]:
    """Pass items on; what a source raises that is not the user's fault is reported as the source's."""
    count = 0
    try:
        for item in items:
            yield item
            count += 1
    except UserError:
        raise
    except Exception as error:
        raise PluginError(
            f"the source {source!r} raised {type(error).__name__}: {error} after {count} item{'s' * (count != 1)}",
            where=f"[sources.{source}]",
            remedy="mend the source or leave it out",
        ) from error


def _checked_record(item: Mapping[str, object], where: str) -> Record:
    if "messages" in item:
        messages = checked_messages(item["messages"], where)
        for message in messages:
            check_encodable(message["content"], where)
        return {**item, "messages": messages}
    if not isinstance(item.get("text"), str):
        raise UserError("neither text nor messages", where=where, remedy="a source yields one of the two")
    check_encodable(str(item["text"]), where)
    return dict(item)
