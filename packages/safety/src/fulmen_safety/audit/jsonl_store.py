"""Records in a file of JSON Lines, one `write` each under a lock on the file, with the head noted in a file beside it.

A process that dies in the middle of a write leaves a line without an end. The next one to append cuts it off and writes
down what it cut; its verdict was never given. Pruning replaces the file; whoever still has the old one open sees that
and opens the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fulmen_core.files import atomic_write_bytes
from fulmen_safety.audit.record import REPAIR, START, Head, Record, canonical, chained, head_of, now
from fulmen_safety.audit.store import unwritable

_HEAD = re.compile(r"(\d+):([0-9a-f]{64})\n")
#: Of a head's file, so that it is overwritten in place.
_HEAD_WIDTH = 96
_BLOCK = 65536


class JsonlStore:
    """See the module, and `AuditStore`.

    Raises:
        AuditUnwritable: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path, self._lock = path, threading.Lock()
        self._descriptor: int | None = None
        self._process = 0
        self._end = -1  # of the file, when this process last wrote to it
        self._head = START
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._open()
        except OSError as error:
            raise unwritable(self.name, error) from error

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound here: `os` is emptied at exit
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            close(descriptor)

    def append(self, body: Mapping[str, Any]) -> Record:
        """See `AuditStore`."""
        try:
            with self._lock, self._alone() as descriptor:
                self._catch_up(descriptor)
                return self._write(descriptor, body)
        except OSError as error:
            raise unwritable(self.name, error) from error

    def records(self) -> Iterator[Record | str]:
        """See `AuditStore`. Reads a file that others may go on writing to, up to its last whole line."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if isinstance(record, dict) and line.endswith(b"\n"):
                    yield record
                elif line.endswith(b"\n"):
                    yield f"line {number} is no record"
                else:
                    yield f"line {number} is torn: {len(line)} bytes without an end"

    def noted_head(self) -> Head | None:
        """See `AuditStore`."""
        try:
            found = _HEAD.match(self._beside().read_text("ascii"))
        except (OSError, ValueError):
            return None
        return Head(int(found[1]), found[2]) if found else None

    def replace_before(self, n: int, checkpoint: Record) -> None:
        """See `AuditStore`."""
        try:
            with self._lock, self._alone():
                kept = [one for one in self.records() if not isinstance(one, str) and one["n"] > n]
                lines = b"".join(canonical(one) + b"\n" for one in [checkpoint, *kept])
                atomic_write_bytes(self._path, lines)
                self._path.chmod(0o600)
        except OSError as error:
            raise unwritable(self.name, error) from error

    def close(self) -> None:
        """See `AuditStore`."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        self.close()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end, self._process = -1, os.getpid()
        return self._descriptor

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Hold the lock on the file that is at the path now."""
        while True:
            # a forked process shares its parent's locks as long as it shares its descriptor
            fresh = self._descriptor is None or self._process != os.getpid()
            descriptor = self._open() if fresh or self._descriptor is None else self._descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    break
            self._open()  # it was replaced or removed: its lock says nothing any more
        try:
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _catch_up(self, descriptor: int) -> None:
        """Know the last record, whoever wrote it, and mend what a dying process left."""
        size = os.fstat(descriptor).st_size
        if size == self._end:
            return
        whole, last = _last_line(descriptor, size)
        self._head = START if last is None else head_of(last)
        self._end = whole
        if whole < size:
            torn = os.pread(descriptor, size - whole, whole)
            os.ftruncate(descriptor, whole)
            cut = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            self._write(descriptor, {"time": now(), "phase": REPAIR, "cut": cut})

    def _write(self, descriptor: int, body: Mapping[str, Any]) -> Record:
        record = chained(body, self._head)
        data = canonical(record) + b"\n"
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)
        if written != len(data):
            os.ftruncate(descriptor, before)
            raise OSError(f"only {written} of {len(data)} bytes were written")
        self._end, self._head = before + written, head_of(record)
        self._note_head()
        return record

    def _note_head(self) -> None:
        note = os.open(self._beside(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(note, f"{self._head}\n".ljust(_HEAD_WIDTH).encode("ascii"), 0)
        finally:
            os.close(note)

    def _beside(self) -> Path:
        return self._path.with_name(f"{self._path.name}.head")


def _last_line(descriptor: int, size: int) -> tuple[int, Record | None]:
    """Return where the last whole line ends, and its record; `OSError` if that is none."""
    tail, start = b"", size
    while start > 0:
        step = min(_BLOCK, start)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
        end = tail.rfind(b"\n")
        begin = tail.rfind(b"\n", 0, end) + 1 if end > 0 else 0
        if end >= 0 and (begin > 0 or start == 0):
            try:
                record: Record = json.loads(tail[begin:end])
                head_of(record)
            except (ValueError, KeyError, TypeError):
                raise OSError("its last line is no record; `fulmen raise audit verify` says more") from None
            return start + end + 1, record
    return 0, None
