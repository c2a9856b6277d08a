"""JSON Lines of instructions and preference pairs, read strictly: a fault names the file, the line and the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import ROLES

Message = Mapping[str, str]


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number from 1, object)`` for each non-blank line.

    Raises:
        UserError: the file is missing, is a folder, is not UTF-8, or a line is not a JSON object.
    """
    if not path.is_file():
        raise UserError("there is no such data file", where=str(path), remedy="give the path of a JSON Lines file")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError("invalid UTF-8", where=where, remedy="re-encode the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise UserError(
                    f"broken JSON ({error.msg} at column {error.colno})",
                    where=where,
                    remedy="each line must be one object",
                ) from error
            if not isinstance(record, dict):
                raise UserError(f"a JSON {type(record).__name__}", where=where, remedy="each line must be one object")
            yield number, record


def checked_messages(value: object, where: str) -> list[dict[str, str]]:
    """Return `value` as chat messages; a plain string is one user message.

    Raises:
        UserError: it is neither, or a role or content is wrong.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or not value:
        raise UserError("no list of messages", where=where, remedy='write [{"role": "user", "content": "..."}]')
    messages: list[dict[str, str]] = []
    for message in value:
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if role not in ROLES or not isinstance(content, str):
            raise UserError(
                f"message {len(messages) + 1} has no valid role and content",
                where=where,
                remedy=f"role is one of {', '.join(ROLES)} and content is a string",
            )
        messages.append({"role": str(role), "content": content})
    return messages
