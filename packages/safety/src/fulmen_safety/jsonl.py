"""JSON Lines of texts, plain or gzipped, read strictly: a fault names the file, the line and the remedy."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(place, object)`` for each line that is not blank; `place` is for sentences about it.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a line is no JSON object.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError("the file is no whole gzip file", where=str(path), remedy=str(error)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read", remedy=error.strerror or str(error)) from error


def text_of(row: dict[str, Any], place: str) -> str:
    """Return the text of a row: its ``text``, ``prompt``, or the contents of its ``messages`` line by line.

    Raises:
        UserError: it has none of them.
    """
    for key in ("text", "prompt"):
        if isinstance(row.get(key), str):
            text: str = row[key]
            return text
    messages = row.get("messages")
    if isinstance(messages, list) and all(isinstance(one, dict) for one in messages):
        return "\n".join(str(one.get("content") or "") for one in messages)
    raise UserError("a line has no text", where=place, remedy='write {"text": "..."} or {"prompt": "..."}')


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
        raise UserError("a line is not JSON in UTF-8", where=place, remedy=str(error)) from error
    if not isinstance(row, dict):
        raise UserError("a line is no JSON object", where=place, remedy="write one object a line")
    return row
