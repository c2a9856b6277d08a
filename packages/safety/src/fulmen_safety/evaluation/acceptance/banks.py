"""What is drawn from: banks of questions, the corpus, the keyword list; and the drawing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_safety.evaluation.labelled import sha256_of
from fulmen_safety.jsonl import numbered_rows

#: Where a text stands in a row, the first that it has.
TEXT_KEYS = ("prompt", "question", "text", "term")


@dataclass(frozen=True, slots=True)
class Item:
    """One question or text of a bank."""

    bank: str
    row: int  # line in the file, from 1
    text: str
    category: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Bank:
    """A file and what it holds."""

    name: str
    path: Path
    items: tuple[Item, ...]

    def draw(self, count: int, seed: str) -> list[Item]:
        """Draw `count` items without replacement, all if there are fewer, in the order of the file."""
        places = random.Random(f"{self.name} {seed}").sample(range(len(self.items)), min(count, len(self.items)))
        return [self.items[place] for place in sorted(places)]

    def record(self) -> dict[str, Any]:
        """Return what names the file in the evidence."""
        return {"file": self.path.name, "sha256": sha256_of(self.path), "rows": len(self.items)}


def read_bank(name: str, path: Path) -> Bank:
    """Read a bank: JSON Lines with the text under "prompt", "question" or "text"; or plain text, an item a line.

    Raises:
        UserError: it cannot be read, is empty, or a row has no text.
    """
    if path.suffix == ".txt":
        items = tuple(Item(name, number, line) for number, line in _lines(path) if line)
    else:
        items = tuple(_item(name, path, number, row) for number, row in numbered_rows(path))
    if not items:
        raise UserError("there is nothing to draw from", where=str(path), remedy="give JSON Lines or a .txt file")
    return Bank(name, path, items)


def without_twins(items: Sequence[Item]) -> list[str]:
    """Return the texts, each once."""
    return list(dict.fromkeys(item.text for item in items))


def _item(name: str, path: Path, number: int, row: dict[str, Any]) -> Item:
    text = next((row[key] for key in TEXT_KEYS if key in row), None)
    if not isinstance(text, str) or not text.strip():
        where, keys = f"{path}:{number}", ", ".join(map(repr, TEXT_KEYS))
        raise UserError("there is no text", where=where, remedy=f"it must stand under {keys}")
    return Item(name, number, text, str(row.get("category") or ""), str(row.get("source") or ""))


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        return [(number, line.strip()) for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1)]
    except UnicodeDecodeError as error:
        raise UserError(
            f"invalid UTF-8 at byte {error.start}", where=str(path), remedy="convert it to UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}", remedy=error.strerror or str(error)) from error
