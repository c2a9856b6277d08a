"""`manifest.json` of a run directory: for each artefact what it is, what made it, from what, and how well it came out.

```json
{"format": "fulmen-run/1",
 "artefacts": {"base": {"kind": "model", "hash": "…", "key": "…", "config": {…},
                        "inputs": {"data": {"hash": "…", "source": "shards"}},
                        "plugins": {"fulmen-trainer": "0.1.0"}, "measurements": {"loss": 1.9},
                        "seconds": 61.3, "finished": "2026-01-31T12:00:00+00:00"}}}
```

The folder of an artefact is its name. `hash` is `fulmen_core.files.hash_tree` of that folder; `key` is the hash of
kind, config and input hashes, so that two steps with one key would make the same thing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fulmen_core.errors import CorruptArtefact
from fulmen_core.files import atomic_write_json, read_json

FORMAT = "fulmen-run/1"
FILE = "manifest.json"


class Input(BaseModel):
    """One thing that an artefact was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash: str
    source: str  # the name of an artefact of this run, or a path outside it


class Entry(BaseModel):
    """One artefact of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    hash: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, Input]
    plugins: dict[str, str]  # distribution -> version, of what was loaded when it was made
    measurements: dict[str, Any]
    seconds: float  # of the last uninterrupted build; a build that was killed and resumed counts from its resumption
    finished: str  # ISO 8601, UTC


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str
    artefacts: dict[str, Entry]


def read_manifest(root: Path) -> dict[str, Entry]:
    """Return the artefacts in the order in which they were made; empty if there is no manifest yet.

    Raises:
        CorruptArtefact: the manifest is truncated, altered, or of another format.
    """
    path = root / FILE
    if not path.exists():
        return {}
    data = read_json(path, "run manifest")
    if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
        raise CorruptArtefact(
            f"the format is {data['format']!r}, not {FORMAT!r}", where=str(path), remedy="use another run directory"
        )
    try:
        return _Manifest.model_validate(data).artefacts
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        raise CorruptArtefact(
            "the run manifest is damaged", where=str(path), remedy=f"{fault}; delete it to build anew"
        ) from error


def write_manifest(root: Path, artefacts: Mapping[str, Entry]) -> None:
    """Replace the manifest, whole or not at all."""
    entries = {name: entry.model_dump(mode="json") for name, entry in artefacts.items()}
    atomic_write_json(root / FILE, {"format": FORMAT, "artefacts": entries})


def key_of(kind: str, config: Mapping[str, Any], inputs: Mapping[str, Input]) -> str:
    """The hash of everything that decides what a step makes; where inputs lie does not. `config` is plain JSON."""
    hashes = {label: one.hash for label, one in inputs.items()}
    text = json.dumps([FORMAT, kind, config, hashes], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def plain(value: Any) -> Any:
    """Return `value` as plain JSON: models, dataclasses, paths, sets and tuples become objects, strings and lists.

    NaN and the infinities, which JSON lacks, become the strings ``"nan"``, ``"inf"`` and ``"-inf"``.

    Raises:
        TypeError: something in it has no faithful plain form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {_plain_key(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=json.dumps)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(inner) for inner in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return plain(value.item())  # a NumPy or torch scalar
    raise TypeError(f"{type(value).__name__} has no plain JSON form")


def _plain_key(key: Any) -> str:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"{type(key).__name__} cannot be a key of a JSON object")
