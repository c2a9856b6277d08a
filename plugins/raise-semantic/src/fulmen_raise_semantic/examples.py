"""The examples of a policy: texts of each category, and ordinary ones that must not be taken for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fulmen_safety import UserError
from fulmen_safety.jsonl import read_rows, text_of

#: Fewer say nothing about where the border is.
FEWEST_EXAMPLES, FEWEST_ORDINARY = 5, 20


@dataclass(frozen=True, slots=True)
class Examples:
    """Distinct texts: of each category, and ordinary ones."""

    by_category: Mapping[str, tuple[str, ...]]
    ordinary: tuple[str, ...]

    def texts(self) -> list[str]:
        """All texts: the ordinary ones first, then those of each category in order."""
        return [*self.ordinary, *(text for texts in self.by_category.values() for text in texts)]

    def digest(self) -> str:
        """SHA-256 of all texts and of which category each is of."""
        digest = hashlib.sha256()
        for name, texts in [("", self.ordinary), *self.by_category.items()]:
            digest.update(f"{len(name)}:{name}{len(texts)}:".encode())
            for text in texts:
                data = text.encode("utf-8", "surrogatepass")
                digest.update(b"%d:%s" % (len(data), data))
        return digest.hexdigest()


def read_examples(files: Mapping[str, str], ordinary: str) -> Examples:
    """Read the files: ``.jsonl`` or ``.jsonl.gz`` with a "text" or "prompt" a line, or plain text with one a line.

    A text that stands in several files stays in the first, ordinary ones first; twice in one, once.

    Raises:
        UserError: a file cannot be read, or holds too few texts.
    """
    seen: set[str] = set()
    kept = {name: _distinct(path, seen) for name, path in [("", ordinary), *files.items()]}
    for name, path in [("", ordinary), *files.items()]:
        fewest = FEWEST_EXAMPLES if name else FEWEST_ORDINARY
        if len(kept[name]) < fewest:
            kind = f"examples of {name}" if name else "ordinary texts"
            raise UserError(
                f"{len(kept[name])} {kind} are too few", where=path, remedy=f"give {fewest} or more, all different"
            )
    return Examples({name: kept[name] for name in files}, kept[""])


def _distinct(path: str, seen: set[str]) -> tuple[str, ...]:
    found = []
    for text in _texts(Path(path)):
        key = " ".join(text.lower().split())
        if key and key not in seen:
            seen.add(key)
            found.append(text)
    return tuple(found)


def _texts(path: Path) -> list[str]:
    if path.suffix == ".gz" or path.suffix in (".jsonl", ".ndjson"):
        return [text_of(row, place) for place, row in read_rows(path)]
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read", remedy=str(error)) from error
