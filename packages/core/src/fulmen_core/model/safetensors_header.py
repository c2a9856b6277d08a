"""Headers of safetensors files, checked against the file's length before a byte of a tensor is read.

Format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian length of the header, the header as
JSON ``{name: {"dtype", "shape", "data_offsets": [begin, end]}}``, then the tensors without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from fulmen_core.errors import CorruptArtefact, UserError

_MAX_HEADER = 100_000_000  # the format's own limit
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_REMEDY = "the file is damaged or was not written whole; copy or save it again"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: `dtype` in the format's spelling ("F32", "BF16", ...), and the shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says it holds, known to agree with the file's length."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of the safetensors file at `path`.

    Raises:
        UserError: the file cannot be opened.
        CorruptArtefact: the header is no valid header, or does not describe exactly the bytes that are there.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
                raise _corrupt("its header does not fit in it", path)
            raw = file.read(length)
    except OSError as error:
        raise UserError(f"weights {path} cannot be read", remedy=error.strerror or str(error)) from error
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _corrupt("its header is not valid JSON", path) from error
    if not isinstance(document, dict):
        raise _corrupt("its header is not a JSON object", path)
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt("its metadata are not strings", path)
    end = _check_layout(document, path)
    if 8 + length + end != size:
        raise _corrupt(f"it has {size} bytes and its header describes {8 + length + end}", path)
    return Header(
        {name: TensorEntry(entry["dtype"], tuple(entry["shape"])) for name, entry in document.items()}, metadata
    )


def _check_layout(document: Mapping[str, Any], path: Path) -> int:
    """Check that the tensors lie one behind the other, and return where the last one ends."""
    spans: list[tuple[int, int]] = []
    for name, entry in document.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in _ITEM_BYTES:
            raise _corrupt(f"tensor '{name}' has no known dtype", path)
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not (_are_sizes(shape) and _are_sizes(offsets)) or len(offsets) != 2:
            raise _corrupt(f"tensor '{name}' has no valid shape and offsets", path)
        begin, end = offsets
        if end - begin != prod(shape) * _ITEM_BYTES[entry["dtype"]]:
            raise _corrupt(f"tensor '{name}' of shape {shape} does not fill its {end - begin} bytes", path)
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _corrupt("its tensors overlap or leave gaps", path)
        position = end
    return position


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _corrupt(fault: str, path: Path) -> CorruptArtefact:
    return CorruptArtefact(f"weights file {path} is corrupt: {fault}", remedy=_REMEDY)
