"""Documents from files: plain text, Markdown, HTML, and JSON Lines with one document a line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fulmen_core.errors import UserError
from fulmen_tool_retrieval.html_text import html_text

MAX_FILE_BYTES = 256 << 20

_TEXT, _MARKDOWN, _HTML, _LINES = {".txt", ".text"}, {".md", ".markdown"}, {".html", ".htm"}, {".jsonl", ".ndjson"}
SUFFIXES = frozenset(_TEXT | _MARKDOWN | _HTML | _LINES)


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        source: where it is from: its path below the folder that was named, with that folder's name, so that nothing of
            the machine's other folders is told; for a line of JSON its "id", else the path and the line.
        title: its heading; may be empty.
        text: what is searched; offsets of passages count in it.
    """

    source: str
    title: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of title and text: equal exactly when nothing needs to be indexed again."""
        return hashlib.sha256(f"{len(self.title)}:{self.title}{self.text}".encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Reading:
    """Reads documents and counts what it passes over.

    Args:
        paths: files and folders; of a folder every file with a known ending, hidden ones excepted.
        text_field: the key of a JSON line that holds the text.

    Attributes:
        passed_over: files of folders that were not read, with the reason.
    """

    paths: Iterable[Path]
    text_field: str = "text"
    passed_over: dict[str, str] = field(default_factory=dict)

    def documents(self) -> Iterator[Document]:
        """Yield every document that holds text.

        Raises:
            UserError: a path is not there, a named file is in no known form, a line of JSON is faulty, or two documents
                have one source.
        """
        seen: set[str] = set()
        for path in self.paths:
            for document in self._below(path):
                if document.source in seen:
                    raise UserError(
                        f"two documents are called {document.source!r}",
                        remedy="give each path once, and each line an 'id' of its own",
                    )
                seen.add(document.source)
                yield document

    def _below(self, path: Path) -> Iterator[Document]:
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{path} is in no form that can be indexed", remedy=f"known are {_known()}")
            yield from self._read(path, path.name)
        elif path.is_dir():
            root = path.resolve()
            for file in sorted(path.rglob("*")):
                if not file.is_file() or any(part.startswith(".") for part in file.relative_to(path).parts):
                    continue
                if file.suffix.lower() not in SUFFIXES:
                    self.passed_over[str(file)] = f"its ending is none of {_known()}"
                    continue
                yield from self._read(file, f"{root.name}/{file.relative_to(path).as_posix()}")
        else:
            raise UserError(f"there is no file or folder {path}", remedy="check the path")

    def _read(self, path: Path, source: str) -> Iterator[Document]:
        text = _text_of(path)
        suffix = path.suffix.lower()
        if suffix in _LINES:
            yield from self._lines(path, source, text)
            return
        title = path.name
        if suffix in _HTML:
            found, text = html_text(text)
            title = found or title
        elif suffix in _MARKDOWN and (heading := re.search(r"^#[ \t]+(.+?)[ \t#]*$", text, re.MULTILINE)):
            title = heading[1]
        if text.strip():
            yield Document(source, title, text)
        else:
            self.passed_over[str(path)] = "it holds no text"

    def _lines(self, path: Path, file: str, text: str) -> Iterator[Document]:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError("a line is not JSON", where=f"{path}:{number}", remedy=str(error)) from error
            if not isinstance(row, dict) or not isinstance(row.get(self.text_field), str):
                raise UserError(
                    f"a line has no text under '{self.text_field}'",
                    where=f"{path}:{number}",
                    remedy="name the key that holds it with --text-field",
                )
            name, title = row.get("id"), row.get("title")
            if row[self.text_field].strip():
                source = f"{file}#{number}" if name is None else str(name)
                yield Document(source, title if isinstance(title, str) else "", row[self.text_field])


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", remedy="split it")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"invalid UTF-8 at byte {error.start}", where=str(path), remedy="convert it to UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read", remedy=error.strerror or str(error)) from error


def _known() -> str:
    return ", ".join(sorted(SUFFIXES))
