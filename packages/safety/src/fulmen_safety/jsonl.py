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
        UserError: as `numbered_rows`.
    """
    return ((f"{path}:{number}", row) for number, row in numbered_rows(path))


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number from 1, object)`` for each line that is not blank, of a file plain or packed by gzip.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a line is no JSON object.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError("the gzip data is cut short or damaged", where=str(path), remedy="copy it again") from error
    except OSError as error:
        what = f"the file cannot be read ({error.strerror or error})"
        raise UserError(what, where=str(path), remedy="give a file of JSON Lines, plain or packed by gzip") from error


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
    remedy = "write one JSON object a line"
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"invalid UTF-8 at byte {error.start}", where=place, remedy="convert it to UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"no JSON ({error})", where=place, remedy=remedy) from error
    if not isinstance(row, dict):
        raise UserError(f"a {type(row).__name__}, not an object", where=place, remedy=remedy)
    return row
