"""A folder of LoRA adapters, each served under the name of its own folder from when it is there until it is gone."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from fulmen_core.adapters.description import AdapterDescription, fingerprint_of
from fulmen_core.errors import UserError
from fulmen_core.model.config import ModelConfig
from fulmen_serving.engine.adapter_places import AdapterRef

logger = logging.getLogger(__name__)


class AdapterFolder:
    """The adapters in `folder`, looked up anew for every request. Thread-safe.

    Args:
        folder: holds one folder in PEFT's form for each adapter.
        model: the name of the model that they change, which none of them can take.
        config: of that model.
        max_rank: of an adapter.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path, model: str, config: ModelConfig, max_rank: int) -> None:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}", remedy="check the path given with --adapters")
        self._folder, self._model, self._config, self._max_rank = folder.resolve(), model, config, max_rank
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}  # by name: the fingerprint that was looked into, and its fault

    def find(self, name: str) -> AdapterRef | None:
        """Return the adapter called `name` as it is now; None if there is none.

        Raises:
            UserError: there is one, and it cannot be served.
        """
        if name == self._model or not name or name.startswith(".") or name != Path(name).name:
            return None  # no path leads out of the folder
        directory = self._folder / name
        try:
            if not directory.is_dir():
                return None
        except OSError:  # such as a name that is too long
            return None
        with self._lock:
            before = self._known.get(name, ("", ""))
            try:
                fingerprint = fingerprint_of(directory)
                fault = before[1] if before[0] == fingerprint else self._fault_of(directory)
            except UserError as error:  # a file is not there
                fingerprint, fault = "", str(error)
            self._known[name] = fingerprint, fault
            if fault and fault != before[1]:
                logger.warning("the adapter %s is not served: %s", name, fault)
        if fault:
            raise UserError(fault)
        return AdapterRef(name, directory, fingerprint)

    def all(self) -> list[AdapterRef]:
        """Return every adapter that can be served now, by name."""
        found = []
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except OSError as error:  # it was there when the server began
            logger.warning("the adapters in %s cannot be listed: %s", self._folder, error.strerror or error)
            return []
        for name in names:
            try:
                adapter = self.find(name)
            except UserError:
                continue
            if adapter is not None:
                found.append(adapter)
        return found

    def _fault_of(self, directory: Path) -> str:
        try:
            AdapterDescription.inspect(directory).check(self._config, self._max_rank)
        except UserError as error:
            return str(error)
        return ""
