"""Sources of documents: the running Python's standard library, a folder, JSON Lines.

A source is a generator of mappings: ``{"text", "source", "name"}`` for a document. What it had to leave out it yields
as ``{"fault", "source", "name"}``, a sentence, so that the pipeline can count it and say so.
"""

from __future__ import annotations

import ast
import io
import json
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import validate_call

from fulmen_core.errors import UserError
from fulmen_trainer.data.splits import Split, check_split, in_split

Document = Mapping[str, object]
Invalid = Literal["refuse", "skip"]
Content = Literal["source", "docstrings"]

#: Not language but tests, other people's packages, generated tables and this machine's build settings.
STDLIB_EXCLUDED = (
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "encodings",
    "config-*",
    "_sysconfigdata*",
)


@validate_call
def python_stdlib(
    *,
    split: Split = "all",
    content: Content = "source",
    heldout_percent: float = 5.0,
    exclude: Sequence[str] = STDLIB_EXCLUDED,
) -> Iterator[Document]:
    """Yield the source files, or the docstrings, of the running interpreter's standard library, by sorted path.

    Args:
        split: "train" or "heldout" by the hash of the file's text, whatever the content; "all" for both.
        content: "source", the files as they are; "docstrings", one document per file of its docstrings under their
            names.
        heldout_percent: share of files that are held out.
        exclude: patterns of folder and file names to leave out, with all below.

    Raises:
        UserError: an unknown setting, or this Python has no library of source files.
    """
    check_split(split, heldout_percent, "source python-stdlib")
    if content not in get_args(Content):
        raise UserError(
            f"unknown content {content!r}", where="source python-stdlib", remedy=f"use {' or '.join(get_args(Content))}"
        )
    root = Path(sysconfig.get_path("stdlib"))
    found = False
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if any(fnmatch(part, pattern) for part in relative.parts for pattern in exclude):
            continue
        found = True
        record = {"source": "python-stdlib", "name": relative.as_posix()}
        try:
            text = _decode_python(path.read_bytes())
            if not in_split(text, split, heldout_percent):
                continue
            yield {"text": _docstrings(relative, text) if content == "docstrings" else text, **record}
        except (SyntaxError, UnicodeDecodeError) as error:  # templates and fixtures that are no Python
            yield {"fault": f"{relative.as_posix()} cannot be read: {error}", **record}
    if not found:
        raise UserError("no source file of the standard library", where=str(root), remedy="use the folder source")


@validate_call
def folder(
    *,
    path: str,
    patterns: Sequence[str] = ("*.txt", "*.md", "*.rst", "*.py"),
    split: Split = "all",
    heldout_percent: float = 5.0,
    invalid: Invalid = "refuse",
) -> Iterator[Document]:
    """Yield the files below a folder that match a pattern, by sorted path, as UTF-8.

    Args:
        path: the folder.
        patterns: file names to take.
        split, heldout_percent: as in `python_stdlib`.
        invalid: what becomes of a file that is not UTF-8: "refuse" stops the run, "skip" leaves it out and counts it.

    Raises:
        UserError: no such folder, an unknown setting, or invalid UTF-8 (with file and byte offset).
    """
    check_split(split, heldout_percent, "source folder")
    _check_invalid(invalid, "source folder")
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}", where="source folder", remedy="check the path")
    files = (file for file in root.rglob("*") if file.is_file() and any(fnmatch(file.name, p) for p in patterns))
    for file in sorted(files, key=lambda file: file.relative_to(root).as_posix()):
        record = {"source": "folder", "name": file.relative_to(root).as_posix()}
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield {"fault": _fault(_invalid_utf8(file, error.start), invalid), **record}
            continue
        if in_split(text, split, heldout_percent):
            yield {"text": text, **record}


@validate_call
def jsonl(
    *,
    path: str,
    field: str = "text",
    split: Split = "all",
    heldout_percent: float = 5.0,
    invalid: Invalid = "refuse",
) -> Iterator[Document]:
    """Yield the objects of a JSON Lines file: documents by their text field, instructions by "messages".

    Args:
        path: the file; empty lines are ignored.
        field: the key of the text in a document.
        split, heldout_percent: as in `python_stdlib`, by the text or the messages.
        invalid: what becomes of a line that is not UTF-8, not JSON or has no text: "refuse" or "skip".

    Raises:
        UserError: no such file, an unknown setting, or a bad line (with its number, and the byte offset in the file of
            invalid UTF-8).
    """
    check_split(split, heldout_percent, "source jsonl")
    _check_invalid(invalid, "source jsonl")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}", where="source jsonl", remedy="check the path")
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = {"source": "jsonl", "name": f"{file.name}:{number}"}
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                item = _parse_item(line, field)
            except UnicodeDecodeError as error:
                yield {"fault": _fault(_invalid_utf8(file, start + error.start), invalid), **record}
            except ValueError as error:
                remedy = "mend the line or set invalid = skip"
                fault = UserError(str(error), where=f"{file} line {number}", remedy=remedy)
                yield {"fault": _fault(fault, invalid), **record}
            else:
                key = str(item.get("text") or json.dumps(item.get("messages"), ensure_ascii=False))
                if in_split(key, split, heldout_percent):
                    yield {**record, **item}


def _parse_item(line: bytes, field: str) -> dict[str, Any]:
    try:
        item = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    _check_surrogates(line)
    if isinstance(item.get("messages"), list):
        return item
    if not isinstance(item.get(field), str):
        raise ValueError(f"no text under {field!r} and no messages")
    return {**{key: value for key, value in item.items() if key != field}, "text": item[field]}


def _check_surrogates(line: bytes) -> None:
    """JSON can spell half of a UTF-16 pair, which is no text."""
    if b"\\ud" in line.lower():
        try:
            json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a lone surrogate, which is no Unicode text") from None


def _decode_python(data: bytes) -> str:
    """Decode source code by its byte order mark or coding line, else as UTF-8 (PEP 263)."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def _docstrings(path: Path, text: str) -> str:
    """Every docstring of a module under the dotted name of what it documents."""
    module = ".".join(part for part in path.with_suffix("").parts if part != "__init__")
    entries: list[str] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                entries.append(f"{name}\n\n{docstring}\n")
            for child in node.body:
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    visit(child, f"{name}.{child.name}")

    visit(ast.parse(text), module)
    return "\n".join(entries)


def _check_invalid(invalid: str, where: str) -> None:
    if invalid not in get_args(Invalid):
        raise UserError(f"unknown setting invalid = {invalid!r}", where=where, remedy="use refuse or skip")


def _invalid_utf8(file: Path, offset: int) -> UserError:
    return UserError(f"invalid UTF-8 at byte {offset}", where=str(file), remedy="mend the file or set invalid = skip")


def _fault(error: UserError, invalid: Invalid) -> str:
    if invalid == "refuse":
        raise error
    return str(error)
