"""The adapters that a runner holds: loaded when first asked for; the least recently used goes when room is short."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from fulmen_core.adapters.description import fingerprint_of
from fulmen_core.errors import UserError
from fulmen_core.runner import Runner


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter as it was when a request named it.

    Attributes:
        name: what clients call it.
        directory: PEFT's folder.
        fingerprint: of its files, see `fingerprint_of`.
    """

    name: str
    directory: Path
    fingerprint: str


@dataclass(slots=True)
class _Loaded:
    number: int
    users: int = 0


class AdapterPlaces:
    """Which adapters `runner` holds and how many sequences run with each. Not thread-safe."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loaded: OrderedDict[AdapterRef, _Loaded] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._loaded)

    @property
    def users(self) -> dict[int, int]:
        """How many sequences run with each adapter that is loaded, by its number."""
        return {loaded.number: loaded.users for loaded in self._loaded.values()}

    def take(self, ref: AdapterRef | None) -> int | None:
        """Return the number of an adapter for one more sequence, 0 for none; loads it if need be.

        Returns:
            None while all places are taken by adapters that sequences run with.

        Raises:
            UserError, CorruptArtefact, MemoryError: it cannot be loaded; or it is no longer what was asked for.
        """
        if ref is None:
            return 0
        if ref not in self._loaded:
            if not self._make_room():
                return None
            number = self._runner.load_adapter(ref.directory)
            self._loaded[ref] = _Loaded(number)
            try:
                changed = fingerprint_of(ref.directory) != ref.fingerprint
            except UserError:
                changed = True
            if changed:
                self._unload(ref)
                raise UserError(f"the adapter '{ref.name}' was replaced while it was loaded", remedy="ask again")
        self._loaded.move_to_end(ref)
        loaded = self._loaded[ref]
        loaded.users += 1
        return loaded.number

    def give_back(self, ref: AdapterRef | None) -> None:
        """One sequence fewer runs with the adapter, which stays loaded until its place is needed."""
        if ref is not None:
            self._loaded[ref].users -= 1

    def _make_room(self) -> bool:
        if len(self._loaded) < self._runner.limits.adapters:
            return True
        unused = next((ref for ref, loaded in self._loaded.items() if not loaded.users), None)
        if unused is None:
            return False
        self._unload(unused)
        return True

    def _unload(self, ref: AdapterRef) -> None:
        self._runner.unload_adapter(self._loaded.pop(ref).number)
