"""Weights written as safetensors, one tensor in memory at a time: `model.safetensors`, or shards with their index.

The header, which comes first, is written last, into room reserved for the longest it can become; the format allows
spaces after it (https://github.com/huggingface/safetensors#format). Files get their names when all of them are whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_write_json, sync_directory

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000

#: The format's spelling of every dtype that a weight may have.
DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

_METADATA = {"format": "pt"}  # transformers loads no file without it
_LONGEST_OFFSETS = [2**63, 2**63]


def write_safetensors(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    load: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, torch.dtype]:
    """Write the tensors that `load` gives for the names of `shapes` into the folder `directory`; return their dtypes.

    Older weights there are replaced. A shard holds at most `shard_bytes`, or a single tensor.

    Raises:
        UserError: the folder cannot be written.
        ValueError: `load` gives a tensor of another shape, or of integers.
    """
    shards: list[_Shard] = []
    dtypes: dict[str, torch.dtype] = {}
    try:
        for number, (name, shape) in enumerate(shapes.items()):
            tensor = load(name).detach().cpu()
            if tuple(tensor.shape) != tuple(shape) or tensor.dtype not in DTYPE_NAMES:
                raise ValueError(f"tensor '{name}' is {tensor.dtype} {tuple(tensor.shape)}, not of shape {shape}")
            if not shards or not shards[-1].takes(tensor, shard_bytes):
                if shards:
                    shards[-1].finish()
                rest = dict(list(shapes.items())[number:])
                shards.append(_Shard(directory / f".{WEIGHTS_FILE}.{os.getpid()}.{len(shards)}.tmp", rest))
            shards[-1].add(name, tensor)
            dtypes[name] = tensor.dtype
        if shards:
            shards[-1].finish()
        _name(shards, directory)
    except OSError as error:
        raise UserError(f"weights cannot be written into {directory}", remedy=error.strerror or str(error)) from error
    finally:
        for shard in shards:
            shard.discard()
    return dtypes


class _Shard:
    """A file under a temporary name. Tensors lie one behind the other, in the order they come in."""

    def __init__(self, path: Path, candidates: Mapping[str, tuple[int, ...]]) -> None:
        """`candidates` are all tensors that may come into this file: room is left for the header that lists them."""
        self.path = path
        self.entries: dict[str, Any] = {}
        self.filled = 0
        longest = {name: _entry(torch.bfloat16, shape, _LONGEST_OFFSETS) for name, shape in candidates.items()}
        self._room = (len(_header(longest)) + 7) // 8 * 8
        self._file = path.open("wb")
        self._file.seek(8 + self._room)

    def takes(self, tensor: Tensor, shard_bytes: int) -> bool:
        """Whether `tensor` fits, and would lie at a multiple of its item size, as readers that map the file require."""
        return self.filled + tensor.nbytes <= shard_bytes and self.filled % tensor.itemsize == 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Append a tensor."""
        end = self.filled + tensor.nbytes
        self.entries[name] = _entry(tensor.dtype, tuple(tensor.shape), [self.filled, end])
        self._file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self.filled = end

    def finish(self) -> None:
        """Write the header and flush all to the disk."""
        with self._file as file:
            file.seek(0)
            file.write(self._room.to_bytes(8, "little") + _header(self.entries).ljust(self._room))
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _entry(dtype: torch.dtype, shape: tuple[int, ...], offsets: list[int]) -> dict[str, Any]:
    return {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": offsets}


def _header(entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"__metadata__": _METADATA, **entries}, separators=(",", ":"), ensure_ascii=False).encode()


def _name(shards: list[_Shard], directory: Path) -> None:
    """Give finished files their names, then remove weights of an older model."""
    count = len(shards)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        names = [WEIGHTS_FILE]
    else:
        (directory / INDEX_FILE).unlink(missing_ok=True)  # it must never list a mixture of old and new shards
    for shard, name in zip(shards, names, strict=True):
        shard.path.replace(directory / name)
    sync_directory(directory)
    if count == 1:
        (directory / INDEX_FILE).unlink(missing_ok=True)
    else:
        weight_map = {tensor: name for shard, name in zip(shards, names, strict=True) for tensor in shard.entries}
        metadata = {"total_size": sum(shard.filled for shard in shards)}
        atomic_write_json(directory / INDEX_FILE, {"metadata": metadata, "weight_map": weight_map})
    for path in [directory / WEIGHTS_FILE, *directory.glob("model-*-of-*.safetensors")]:
        if path.name not in names:
            path.unlink(missing_ok=True)
