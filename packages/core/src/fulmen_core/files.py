"""Files that are whole or absent: everything is written under a temporary name, synced, and renamed into place.

A crash at any instant leaves the old file, the new file, or a leftover whose name starts with a dot; never a
half-written file under the real name. Hashes are SHA-256 in hexadecimal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fulmen_core.errors import CorruptArtefact, UserError

#: What the names of unfinished files and folders look like; a killed process may leave one behind.
TEMPORARY = r"\..*\.[0-9]+\.[0-9a-f]{8}\.tmp"

_CHUNK = 1 << 20


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, whole or not at all. Parent folders are made.

    Raises:
        UserError: the file cannot be written there.
    """
    path = Path(path)
    temporary = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # gone already unless something above failed


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 with the line ends it has; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` as indented JSON; see `atomic_write_bytes`. NaN and infinities are refused: they are not JSON."""
    atomic_write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write; when the block ends well it becomes `path`, replacing an older one.

    When the block raises, the sibling is removed and `path` is untouched. A crash leaves at worst a dotted sibling.

    Raises:
        UserError: the folder cannot be written there.
    """
    path = Path(path)
    temporary = _make_beside(path, lambda sibling: sibling.touch(exist_ok=False))
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # gone already unless something above failed


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to fill; when the block ends well it becomes `path`, replacing an older one.

    When the block raises, the sibling is removed and `path` is untouched. A crash leaves at worst a dotted sibling.

    Raises:
        UserError: the folder cannot be written there.
    """
    path = Path(path)
    work = _make_beside(path, Path.mkdir)
    try:
        yield work
        sync_tree(work)
        replace_directory(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def replace_directory(work: Path, path: Path) -> None:
    """Rename folder `work` to `path` on the same file system, moving an older `path` out of the way first.

    The only instant without a `path` lies between two renames; `work` is whole by then, so nothing is lost.
    """
    older = _sibling(path)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        path.rename(older)
    work.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(older, ignore_errors=True)


def sync_tree(root: Path) -> None:
    """Flush every file and folder below `root` to the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                _sync(file)
        sync_directory(Path(folder))


def sync_directory(folder: Path) -> None:
    """Flush the names in `folder`, so that a rename survives a power cut (POSIX; elsewhere folders do not open)."""
    if os.name == "posix":
        _sync(folder)


def hash_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    _update(digest, Path(path))
    return digest.hexdigest()


def hash_tree(path: Path | str) -> str:
    """Return one SHA-256 for a file, or for a folder: its sorted relative names, empty folders, and contents.

    Names and contents are length-prefixed, so that no two different trees feed the same bytes. Symbolic links count by
    their target's content if it is a file, by its name otherwise. Times and permissions do not count.
    """
    path = Path(path)
    if not path.is_dir():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
        if file.is_file():
            digest.update(b"F%d:%s%d:" % (len(name), name, file.stat().st_size))
            _update(digest, file)
        elif file.is_symlink():
            target = os.fsencode(file.readlink())
            digest.update(b"L%d:%s%d:%s" % (len(name), name, len(target), target))
        else:
            digest.update(b"D%d:%s" % (len(name), name))
    return digest.hexdigest()


def read_json(path: Path | str, kind: str) -> Any:
    """Read a JSON file. `kind` says what it is in the error sentence, e.g. ``"model config"``.

    Raises:
        UserError: there is no such file, or it cannot be read.
        CorruptArtefact: it is not JSON in UTF-8, for example because it was cut off.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no {kind} at {path}", remedy="check the path") from error
    except OSError as error:
        raise UserError(f"the {kind} at {path} cannot be read", remedy=error.strerror or str(error)) from error
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise CorruptArtefact(f"the {kind} is not valid JSON", where=str(path), remedy=str(error)) from error


def _update(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sibling(path: Path) -> Path:
    """A fresh temporary name beside `path`: on its file system, so that renames are atomic; globs skip dotted names."""
    return path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def _make_beside(path: Path, make: Callable[[Path], None]) -> Path:
    """A sibling that `make` made."""
    made = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(made)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return made


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written", remedy=error.strerror or str(error))
