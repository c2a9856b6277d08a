"""Labelled texts, and which of them are so alike that they must stand on one side of a split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fulmen_safety import UserError
from fulmen_safety.jsonl import read_rows, text_of
from fulmen_safety.taxonomy import taxonomy

#: Characters of a piece that two texts share if they are alike, and how many pieces of a text are compared.
_PIECE, _PIECES = 24, 6
_APART = re.compile(r"[\W_\d]+")


@dataclass(frozen=True, slots=True)
class Row:
    """A text and the category it is of; "" if it is safe."""

    text: str
    category: str


def read_labelled(files: Iterable[Path], categories: Mapping[str, str], otherwise: str) -> list[Row]:
    """Read ``{"prompt" or "text", "label": "safe"|"unsafe", "category"}`` a line; the same text twice counts once.

    Args:
        files: JSON Lines, plain or gzipped.
        categories: the data's name of a category -> the taxonomy's.
        otherwise: category of unsafe texts whose own is neither the taxonomy's nor in `categories`; empty refuses them.

    Raises:
        UserError: a file is at fault, a label is unknown, or an unsafe text has no category.
    """
    for category in (*categories.values(), *([otherwise] if otherwise else [])):
        taxonomy().check(category, "the categories to train for")
    rows: dict[str, Row] = {}
    for file in files:
        for place, row in read_rows(file):
            label, named = row.get("label"), str(row.get("category", ""))
            if label not in ("safe", "unsafe"):
                raise UserError(f"the label is {label!r}", where=place, remedy="write safe or unsafe")
            category = "" if label == "safe" else categories.get(named) or _known(named) or otherwise
            if label == "unsafe" and not category:
                raise UserError(
                    f"the category {named!r} is not of the taxonomy",
                    where=place,
                    remedy="say which it is with --map, or give --category for all such texts",
                )
            text = text_of(row, place)
            rows.setdefault(text, Row(text, category))
    return list(rows.values())


def groups(texts: Sequence[str]) -> list[int]:
    """Return for each text the number of its group: texts that share a piece of 24 letters are of one, and whoever is
    of a group with one of them.

    Of each text the pieces with the smallest hashes are compared (min-wise hashing, Broder 1997), so that texts made
    from one template, or copied with a change, meet in some of them.
    """
    parent = list(range(len(texts)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    first: dict[bytes, int] = {}
    for at, text in enumerate(texts):
        for piece in _pieces(text):
            parent[root(at)] = root(first.setdefault(piece, at))
    return [root(at) for at in range(len(texts))]


def part_of(group: int, texts: Sequence[str]) -> float:
    """A number in [0, 1) that hangs on the content of a group's first text alone: where a split puts the group."""
    digest = hashlib.sha256(texts[group].encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _pieces(text: str) -> list[bytes]:
    shown = _APART.sub("", text.lower())
    whole = range(max(len(shown) - _PIECE, 0) + 1)
    hashes = {hashlib.blake2b(shown[at : at + _PIECE].encode(), digest_size=8).digest() for at in whole}
    return sorted(hashes)[:_PIECES]


def _known(name: str) -> str:
    return name if name in taxonomy().titles else ""
