"""The container: header, metadata and tensor infos of a GGUF file, checked against its length before use.

Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: "GGUF", version, number of tensors,
number of metadata entries, the entries, the tensor infos, then the tensors at multiples of `general.alignment`.
Dimensions are stored with the innermost first; `TensorInfo.shape` has the outermost first, as NumPy and torch do.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.formats.gguf.blocks import BLOCKS, BlockType

_VERSIONS = (2, 3)
_MAX_DIMS = 4
_MAX_NESTING = 4
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOL: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
#: The fewest bytes that a metadata entry (key length, type, value) and a tensor info can take.
_LEAST_ENTRY, _LEAST_INFO = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
_REMEDY = "the file is damaged or was not written whole; download or convert it again"

#: A metadata value: a scalar, a string, a list of strings or lists, or an array of numbers.
Value = Any


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: `begin` counts bytes from the start of the file."""

    name: str
    kind: BlockType
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class GgufFile:
    """An open GGUF file whose header agrees with its length. The file is mapped; nothing of a tensor is read here.

    Attributes:
        path: the file.
        metadata: the entries by key, in the file's order.
        tensors: where each tensor lies, by name.

    Raises:
        UserError: the file cannot be opened, is no GGUF file, or holds a tensor type that is not supported.
        CorruptArtefact: it is truncated, or lies about counts, lengths, shapes or offsets; names the field or tensor.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                # An empty file cannot be mapped, and is no GGUF file anyway.
                length = file.seek(0, 2)
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if length else b""
        except OSError as error:
            raise UserError(f"{path} cannot be read", remedy=error.strerror or str(error)) from error
        cursor = _Cursor(self._data, path)
        tensor_count, entry_count = _read_start(cursor)
        self.metadata: Mapping[str, Value] = _read_metadata(cursor, entry_count)
        self.tensors: Mapping[str, TensorInfo] = _read_infos(cursor, tensor_count, self._alignment(cursor))

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, as a view of the mapped file."""
        info = self.tensors[name]
        return np.frombuffer(self._data, np.uint8, info.nbytes, info.begin)

    def corrupt(self, fault: str) -> CorruptArtefact:
        """The error for a fault that was found in this file."""
        return _corrupt(fault, self.path)

    def _alignment(self, cursor: _Cursor) -> int:
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise cursor.corrupt(f"general.alignment is {alignment!r}, which is no power of two of at least 8")
        return alignment


class _Cursor:
    """Reads the file front to back and never beyond its end."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self._data, self.path, self.length = data, path, len(data)
        self.position = 0

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise self.corrupt(f"{what} would take {count} bytes and {self.left} are left")
        self.position += count
        return self._data[self.position - count : self.position]

    @property
    def left(self) -> int:
        return self.length - self.position

    def number(self, code: str, what: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]
        return value

    def string(self, what: str) -> str:
        raw = self.take(self.number("Q", f"the length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.corrupt(f"{what} is not UTF-8") from None

    def room_for(self, count: int, least: int, what: str) -> None:
        """Refuse a count of things that cannot all lie in the rest of the file."""
        if count * least > self.left:
            raise self.corrupt(f"it announces {count} {what} and has {self.left} bytes left for them")

    def corrupt(self, fault: str) -> CorruptArtefact:
        return _corrupt(fault, self.path)


def _corrupt(fault: str, path: Path) -> CorruptArtefact:
    return CorruptArtefact(f"GGUF file {path} is corrupt: {fault}", remedy=_REMEDY)


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """Check magic and version; return the counts of tensors and of metadata entries."""
    if cursor.length < 4 or cursor.take(4, "the magic") != b"GGUF":
        raise UserError(f"{cursor.path} is no GGUF file", remedy="it does not begin with 'GGUF'; check the path")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        fault = "is big-endian" if swapped in _VERSIONS else f"has GGUF version {version}"
        raise UserError(f"{cursor.path} {fault}, which is not supported", remedy="convert it again with llama.cpp")
    tensor_count = cursor.number("Q", "the number of tensors")
    entry_count = cursor.number("Q", "the number of metadata entries")
    cursor.room_for(entry_count, _LEAST_ENTRY, "metadata entries")
    cursor.room_for(tensor_count, _LEAST_INFO, "tensors")
    return tensor_count, entry_count


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for index in range(count):
        key = cursor.string(f"the key of metadata entry {index}")
        if key in metadata:
            raise cursor.corrupt(f"{key!r} is there twice")
        metadata[key] = _read_value(cursor, cursor.number("I", f"the type of {key!r}"), key, 0)
    return metadata


def _read_value(cursor: _Cursor, kind: int, key: str, depth: int) -> Value:
    if kind == _STRING:
        return cursor.string(f"the value of {key!r}")
    if kind == _ARRAY:
        return _read_array(cursor, key, depth)
    scalar = _read_scalars(cursor, kind, 1, key)[0]
    # A float32 becomes the shortest decimal that rounds to it: 1e-5, not 9.999999747378752e-06.
    return float(str(scalar)) if isinstance(scalar, np.float32) else scalar.item()


def _read_array(cursor: _Cursor, key: str, depth: int) -> Value:
    item_kind = cursor.number("I", f"the item type of {key!r}")
    count = cursor.number("Q", f"the length of {key!r}")
    if item_kind not in (_STRING, _ARRAY):
        return _read_scalars(cursor, item_kind, count, key)
    if depth == _MAX_NESTING:
        raise cursor.corrupt(f"the arrays of {key!r} are nested too deeply")
    cursor.room_for(count, 8 if item_kind == _STRING else 12, f"items of {key!r}")
    return [_read_value(cursor, item_kind, key, depth + 1) for _ in range(count)]


def _read_scalars(cursor: _Cursor, kind: int, count: int, key: str) -> NDArray[Any]:
    if kind not in _SCALARS:
        raise cursor.corrupt(f"{key!r} has the unknown value type {kind}")
    dtype = _SCALARS[kind]
    values = np.frombuffer(cursor.take(count * dtype.itemsize, f"the value of {key!r}"), dtype)
    if kind != _BOOL:
        return values
    if values.size and values.max() > 1:
        raise cursor.corrupt(f"{key!r} holds a truth value that is neither 0 nor 1")
    return values.astype(np.bool_)


def _read_infos(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    """Read the tensor infos, then place the tensors behind them and check that all lie in the file, each on its own."""
    found: dict[str, tuple[BlockType, tuple[int, ...], int]] = {}
    for index in range(count):
        name = cursor.string(f"the name of tensor {index}")
        if name in found:
            raise cursor.corrupt(f"tensor {name!r} is there twice")
        found[name] = _read_info(cursor, name, alignment)
    start = -(-cursor.position // alignment) * alignment
    infos: dict[str, TensorInfo] = {}
    for name, (kind, shape, offset) in found.items():
        nbytes = prod(shape) // kind.size * kind.nbytes
        infos[name] = TensorInfo(name, kind, shape, start + offset, nbytes)
        if start + offset + nbytes > cursor.length:
            raise cursor.corrupt(f"tensor {name!r} of shape {shape} reaches beyond the end of the file")
    end = 0
    for info in sorted(infos.values(), key=lambda info: info.begin):
        if info.begin < end:
            raise cursor.corrupt(f"tensor {info.name!r} overlaps another")
        end = info.begin + info.nbytes
    return infos


def _read_info(cursor: _Cursor, name: str, alignment: int) -> tuple[BlockType, tuple[int, ...], int]:
    what = f"tensor {name!r}"
    dims = cursor.number("I", f"the number of dimensions of {what}")
    if not 1 <= dims <= _MAX_DIMS:
        raise cursor.corrupt(f"{what} has {dims} dimensions, not 1 to {_MAX_DIMS}")
    shape = tuple(cursor.number("Q", f"the shape of {what}") for _ in range(dims))[::-1]
    number = cursor.number("I", f"the type of {what}")
    offset = cursor.number("Q", f"the offset of {what}")
    if not all(shape):
        raise cursor.corrupt(f"{what} of shape {shape} is empty")
    if number not in BLOCKS:
        raise UserError(
            f"{what} has the type {_type_name(number)}, which is not supported",
            where=str(cursor.path),
            remedy=f"take a file in {', '.join(kind.name for kind in BLOCKS.values())}",
        )
    kind = BLOCKS[number]
    if shape[-1] % kind.size:
        raise cursor.corrupt(f"the rows of {what}, {shape[-1]} wide, are no whole {kind.name} blocks of {kind.size}")
    if offset % alignment:
        raise cursor.corrupt(f"{what} lies at offset {offset}, which is no multiple of {alignment}")
    return kind, shape, offset


#: ggml's numbers of types that exist and are not read here, so that a sentence can name them.
_OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip


def _type_name(number: int) -> str:
    return _OTHER_TYPES.get(number, str(number))
