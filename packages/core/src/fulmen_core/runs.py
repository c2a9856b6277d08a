"""A run directory: named artefacts, each made by one step from others, with a manifest that says how.

```python
run = RunDirectory(Path("runs/demo"))
shards = run.step("shards", kind="shards", config=config, inputs={"corpus": corpus}, build=write_shards)
base = run.step("base", kind="model", config=train, inputs={"shards": shards}, build=pretrain)
```

A step whose config, inputs and output are what they were is skipped. Otherwise ``build(work)`` fills a work directory,
which *survives a kill*: the next attempt at the same step finds what is there (its own checkpoints, say) and may go on
from it. Only a finished work directory is renamed to its place, and only then is the manifest replaced; a crash at any
instant loses no finished build and publishes no half one.

```text
ROOT/manifest.json               what there is
ROOT/NAME/                       a published artefact
ROOT/.work/NAME-KEY/             a build in progress, or one that was killed
ROOT/.work/NAME-KEY.finished     its manifest entry, from the end of the build until the manifest has it
```
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import TEMPORARY, atomic_write_json, hash_tree, read_json, replace_directory, sync_tree
from fulmen_core.run_manifest import FILE, Entry, Input, key_of, plain, read_manifest, write_manifest

if TYPE_CHECKING:
    from fulmen_core.registry import Registry

log = logging.getLogger(__name__)

#: A build may keep this subfolder of its work directory to resume from; it is removed before publishing.
CHECKPOINTS = "checkpoints"

#: Run directory -> the thread of this process that runs steps there, through whichever `RunDirectory` object.
_held_by: dict[Path, int] = {}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A published result of a step."""

    name: str
    kind: str
    path: Path
    hash: str  # hash_tree of `path`
    measurements: Mapping[str, Any]
    skipped: bool  # it was there already


class RunDirectory:
    """A folder of artefacts and its manifest. One process at a time may run steps in it."""

    def __init__(self, root: Path | str, *, registry: Registry | None = None) -> None:
        """Use `root`, which the first step makes. The manifest names the plugins that `registry` has loaded by then."""
        self.root = Path(root)
        self._registry = registry

    def step(
        self,
        name: str,
        *,
        kind: str,
        config: Any,
        inputs: Mapping[str, Path | Artefact],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artefact:
        """Make the artefact `name` unless it is there already, made from the same things and unaltered.

        Args:
            name: also the folder's name.
            kind: what it is, e.g. ``"shards"``, ``"model"``, ``"report"``.
            config: everything besides `inputs` that decides the result: a mapping, pydantic model or dataclass.
            inputs: artefacts of earlier steps, and files or folders from outside, which are hashed.
            build: called with the work directory; fills it and returns measurements. After a kill it is called again
            with
                the same directory, so it must cope with what it left there. The subfolder ``checkpoints`` is removed
                before publishing.

        Raises:
            UserError: an input is missing, or another process works in this directory.
            CorruptArtefact: the manifest is damaged.
        """
        if not _NAME.fullmatch(name) or name == FILE:
            raise ValueError(f"{name!r} cannot name an artefact")
        facts: dict[str, Any] = plain(config)
        sources = {label: _input(label, value) for label, value in inputs.items()}
        key = key_of(kind, facts, sources)
        with self._lock():
            work = self.root / ".work" / f"{name}-{key[:16]}"
            self._recover(name, key, work)
            known = read_manifest(self.root).get(name)
            if known and known.key == key and self._unaltered(name, known):
                return self._artefact(name, known, skipped=True)
            work.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            measurements = plain(build(work))
            shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
            sync_tree(work)
            entry = Entry(
                kind=kind,
                hash=hash_tree(work),
                key=key,
                config=facts,
                inputs=sources,
                plugins=self._registry.active_versions() if self._registry else {},
                measurements=measurements,
                seconds=round(time.monotonic() - started, 3),
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            atomic_write_json(_receipt(work), entry.model_dump(mode="json"))
            self._publish(name, entry, work)
            return self._artefact(name, entry, skipped=False)

    def artefact(self, name: str) -> Artefact:
        """Return a published artefact.

        Raises:
            UserError: the run has none of that name.
            CorruptArtefact: the manifest is damaged.
        """
        entries = read_manifest(self.root)
        if name not in entries or not (self.root / name).exists():
            from fulmen_core.suggestions import remedy_for_unknown

            raise UserError(
                f"no artefact {name!r}",
                where=str(self.root),
                remedy=remedy_for_unknown(name, entries, kind="artefacts"),
            )
        return self._artefact(name, entries[name], skipped=True)

    def entries(self) -> dict[str, Entry]:
        """Return the manifest's artefacts in the order in which they were made. Raises `CorruptArtefact`."""
        return read_manifest(self.root)

    # -- publishing ----------------------------------------------------------------------------------------------------

    def _publish(self, name: str, entry: Entry, work: Path) -> None:
        """Put a finished build in its place and into the manifest. `_recover` can complete every prefix of this."""
        replace_directory(work, self.root / name)
        self._enter(name, entry, work)

    def _enter(self, name: str, entry: Entry, work: Path) -> None:
        entries = read_manifest(self.root)
        entries.pop(name, None)  # so that a rebuilt artefact is the newest
        write_manifest(self.root, {**entries, name: entry})
        # The receipt, builds of this artefact under older configs, and what killed processes left under temporary
        # names: nobody else is at work here while the lock is held.
        for folder, pattern in (
            (work.parent, rf"{re.escape(name)}-[0-9a-f]{{16}}(\.finished)?"),
            (work.parent, TEMPORARY),
            (self.root, TEMPORARY),
        ):
            for stale in folder.iterdir():
                if re.fullmatch(pattern, stale.name):
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    def _recover(self, name: str, key: str, work: Path) -> None:
        """Complete the publishing of a build that finished before its process was killed."""
        if not _receipt(work).exists():
            return
        try:
            entry = Entry.model_validate(read_json(_receipt(work), "receipt"))
        except (CorruptArtefact, ValidationError):
            _receipt(work).unlink()  # the work directory stays; the build goes on from what it left there
            return
        if work.is_dir() and hash_tree(work) == entry.hash:
            self._publish(name, entry, work)
        elif entry.key == key and self._unaltered(name, entry):
            self._enter(name, entry, work)
        else:
            _receipt(work).unlink()

    def _unaltered(self, name: str, entry: Entry) -> bool:
        path = self.root / name
        if not path.exists():
            return False
        if hash_tree(path) == entry.hash:
            return True
        log.warning("%s is no longer what was made there; it is made anew", path)
        return False

    def _artefact(self, name: str, entry: Entry, *, skipped: bool) -> Artefact:
        return Artefact(name, entry.kind, self.root / name, entry.hash, entry.measurements, skipped)

    # -- one process at a time -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the run directory. The system lets go of it when the process dies, however it dies. Steps may nest."""
        root = self.root.resolve()
        if _held_by.get(root) == threading.get_ident():
            yield
            return
        path = self.root / ".work" / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"the run directory {self.root} cannot be written", remedy=error.strerror or str(error)
            ) from error
        with file:
            if not _take(file.fileno()):
                file.seek(0)
                owner = file.read().strip()
                raise UserError(
                    f"another process{f' ({owner})' if owner else ''} works in {self.root}",
                    remedy="wait for it, or use another run",
                )
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
            _held_by[root] = threading.get_ident()
            try:
                yield
            finally:
                del _held_by[root]


def _take(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks; two processes in one run directory are the user's own lookout
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _receipt(work: Path) -> Path:
    return work.with_name(f"{work.name}.finished")


def _input(label: str, value: Path | Artefact) -> Input:
    if isinstance(value, Artefact):
        return Input(hash=value.hash, source=value.name)
    if not value.exists():
        raise UserError(f"there is no {value}", where=f"the input '{label}'", remedy="check the path")
    return Input(hash=hash_tree(value), source=str(value))
