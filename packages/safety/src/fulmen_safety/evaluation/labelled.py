"""Labelled texts from JSON Lines, plain or gzip-compressed.

A row is ``{"prompt" or "text": str, "label": "safe" | "unsafe", "category": str, "lang": str}``, with ``"response"``
for the answer that is judged in the output phase; or, among texts that are safe by their file, any instruction file's
``{"messages": [{"role", "content"}]}``, of which the last user turn is taken. Other keys are ignored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_safety.jsonl import read_rows
from fulmen_safety.language import language_of

#: Where the judged text stands, by phase, the first that a row has.
TEXT_KEYS = {"input": ("prompt", "text", "messages"), "output": ("response", "text", "prompt", "messages")}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text to judge. `prompt` is what it answers, where it is an answer; `lang` is told by script if not given."""

    text: str
    unsafe: bool
    category: str = ""
    lang: str = ""
    prompt: str = ""


def read_labelled(path: Path, phase: str, *, label: str | None = None) -> list[LabelledText]:
    """Read a file of labelled texts.

    Args:
        phase: "input" or "output": which key of a row holds the judged text.
        label: what rows without a label are; None: a label is required.

    Raises:
        UserError: the file is missing, empty, no JSON Lines, or a row lacks what it needs; file and line are named.
    """
    read = [_labelled(row, place, phase, label) for place, row in read_rows(path)]
    if not read:
        raise UserError("there are no rows", where=str(path), remedy="give a file of JSON Lines, one object a line")
    return read


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, to name what was measured."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _labelled(row: dict[str, Any], where: str, phase: str, default: str | None) -> LabelledText:
    label = row.get("label", default)
    if label not in ("safe", "unsafe"):
        what = "there is no label" if label is None else f"the label {label!r}"
        raise UserError(what, where=where, remedy='it must be "safe" or "unsafe"')
    keys = TEXT_KEYS[phase]
    key = next((key for key in keys if key in row), None)
    if key is None:
        raise UserError("there is no text", where=where, remedy=f"it must stand under {', '.join(map(repr, keys))}")
    text = _last_user_turn(row[key], where) if key == "messages" else _string(row, key, where)
    return LabelledText(
        text,
        label == "unsafe",
        _string(row, "category", where),
        _string(row, "lang", where) or language_of(text),
        _string(row, "prompt", where) if key == "response" else "",
    )


def _string(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise UserError(f"{key!r} is a {type(value).__name__}", where=where, remedy="it must be a string")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise UserError(f"{key!r} has half a surrogate pair", where=where, remedy="write valid Unicode")
    return value


def _last_user_turn(messages: object, where: str) -> str:
    turns = messages if isinstance(messages, list) else []
    said = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    if not said:
        raise UserError("'messages' has no user turn", where=where, remedy='write [{"role": "user", "content": "…"}]')
    return _string(said[-1], "content", where)
