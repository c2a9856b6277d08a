"""Typed access to the metadata of a GGUF file; a fault is one sentence that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fulmen_core.errors import UserError

_REQUIRED: Any = object()


class Fields:
    """The metadata of one file. Keys that start with a dot are of the architecture: ".block_count".

    Args:
        metadata: as `GgufFile` read it.
        path: the file, for sentences.

    Raises:
        UserError: the file does not say which architecture it holds.
    """

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata, self._path = metadata, path
        self.architecture = ""
        self.architecture = self.text("general.architecture")

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self._metadata

    def integer(self, key: str, default: int = _REQUIRED) -> int:
        """A whole number that is not negative."""
        value = self._get(key, default)
        if isinstance(value, np.ndarray) and value.size and (value == value.flat[0]).all():
            value = value.flat[0].item()  # one number for each layer, and all are equal
        if isinstance(value, bool) or not isinstance(value, int) or (value < 0 and value is not default):
            raise self.wrong(key, value, "a whole number")
        return int(value)

    def number(self, key: str, default: float = _REQUIRED) -> float:
        """A number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._get(key, _REQUIRED)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of texts")
        return value

    def numbers(self, key: str, count: int) -> list[Any]:
        """A list of exactly `count` numbers."""
        value = self._get(key, _REQUIRED)
        if not isinstance(value, np.ndarray) or value.ndim != 1 or len(value) != count:
            raise self.wrong(key, value, f"a list of {count} numbers")
        return list(value.tolist())

    def wrong(self, key: str, value: object, wanted: str) -> UserError:
        """The error for a field that holds something else than it should."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UserError(f"{self._full(key)} is {shown}, not {wanted}", where=str(self._path))

    def refuse(self, fault: str, remedy: str = "") -> UserError:
        """The error for a model that this file describes and that cannot be imported."""
        return UserError(fault, where=str(self._path), remedy=remedy)

    def _full(self, key: str) -> str:
        return f"{self.architecture}{key}" if key.startswith(".") else key

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(self._full(key), default)
        if value is _REQUIRED:
            raise UserError(f"the metadata lack {self._full(key)}", where=str(self._path), remedy="convert it again")
        return value
