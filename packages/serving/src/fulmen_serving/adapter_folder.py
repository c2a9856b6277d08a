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
        model: the directory of the model that they change.
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
        fingerprint = fingerprint_of(directory)
        with self._lock:
            looked_into, fault = self._known.get(name, ("", ""))
            if looked_into != fingerprint:
                fault = self._fault_of(directory)
                self._known[name] = fingerprint, fault
                if fault:
                    logger.warning("the adapter %s is not served: %s", name, fault)
        if fault:
            raise UserError(fault)
        return AdapterRef(name, directory, fingerprint)

    def all(self) -> list[AdapterRef]:
        """Return every adapter that can be served now, by name."""
        found = []
        for directory in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            try:
                adapter = self.find(directory.name)
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
