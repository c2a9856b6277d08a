"""The weights of a folder, in one safetensors file or in shards: headers are checked first, tensors come when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import read_json
from fulmen_core.model.safetensors_header import TensorEntry, read_header
from fulmen_core.model.safetensors_writer import DTYPE_NAMES, INDEX_FILE, WEIGHTS_FILE


class StoredTensors:
    """The tensors in a folder.

    Attributes:
        entries: the file and the header's entry of each, known to agree with the files' lengths.
    """

    def __init__(self, directory: Path) -> None:
        """Read and check all headers; no tensor is read.

        Raises:
            UserError: there are no weights.
            CorruptArtefact: a file is truncated, its header lies, or the index and the shards disagree.
        """
        self.directory = directory
        self.entries: Mapping[str, tuple[Path, TensorEntry]] = _read_entries(directory)
        self._files: dict[Path, Any] = {}

    def check(self, expected: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Compare names, shapes and dtypes with what they should be; other tensors may be there as well.

        Raises:
            CorruptArtefact: a tensor is missing, of another shape, or of integers.
        """
        for name, shape in expected:
            if name not in self.entries:
                raise CorruptArtefact(f"tensor '{name}' is missing from the weights", where=str(self.directory))
            path, entry = self.entries[name]
            if entry.shape != tuple(shape):
                raise CorruptArtefact(f"tensor '{name}' is {entry.shape} and the config says {shape}", where=str(path))
            if entry.dtype not in DTYPE_NAMES.values():
                raise CorruptArtefact(f"tensor '{name}' has dtype {entry.dtype}, which no weight has", where=str(path))

    def refuse(self, strangers: Iterable[str]) -> None:
        """Refuse the first of `strangers`, if there is one: what it is for would be lost.

        Raises:
            CorruptArtefact: there is one.
        """
        for name in strangers:
            where = str(self.entries[name][0])
            raise CorruptArtefact(f"the weights hold '{name}', which the config does not describe", where=where)

    def load(self, name: str) -> Tensor:
        """The tensor `name` in its stored dtype: a view of the mapped file, which is read where it is looked at.

        Raises:
            CorruptArtefact: the file cannot be read.
        """
        path = self.entries[name][0]
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, framework="pt")
            tensor: Tensor = self._files[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CorruptArtefact(f"weights file {path} is corrupt: {error}") from error
        return tensor


def _read_entries(directory: Path) -> dict[str, tuple[Path, TensorEntry]]:
    single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if single.is_file():
        return {name: (single, entry) for name, entry in read_header(single).tensors.items()}
    if not index.is_file():
        raise UserError(f"folder {directory} holds no weights", remedy=f"expected {WEIGHTS_FILE} or {INDEX_FILE}")
    document = read_json(index, "weight index")
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CorruptArtefact("the weight index has no valid weight_map", where=str(index))
    entries: dict[str, tuple[Path, TensorEntry]] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise CorruptArtefact(f"the weight index points outside its folder, to '{file}'", where=str(index))
        if not (directory / file).is_file():
            raise CorruptArtefact(f"shard {file} is missing", where=str(directory), remedy="copy all shards")
        for name, entry in read_header(directory / file).tensors.items():
            entries[name] = (directory / file, entry)
    misplaced = [name for name, file in weight_map.items() if name not in entries or entries[name][0].name != file]
    if misplaced or len(entries) != len(weight_map):
        raise CorruptArtefact("the weight index and the shards list different tensors", where=str(directory))
    return entries
