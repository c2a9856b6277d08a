"""Token shards: one long sequence of token ids in .bin files, a table of documents, and an index that vouches for both.

A directory holds ``tokens-00000.bin`` … (little-endian uint16 or uint32), ``documents.bin`` (int64 [documents, 2]:
tokens and UTF-8 bytes of each document) and ``index.json``, written last: a directory without it is no shard set.
Documents lie one after another and never cross a file. Reading maps the files into memory.

Shapes: N documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_write_json, hash_file, read_json
from fulmen_core.tokenizer import Tokenizer

INDEX = "index.json"
_DOCUMENTS = "documents.bin"
_DTYPES: dict[str, np.dtype[np.unsignedinteger]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


class TokenisedDocument(NamedTuple):
    """A document's ids, with the special tokens that frame it, and the number of UTF-8 bytes of its text."""

    ids: Sequence[int]
    bytes: int


class ShardFile(BaseModel):
    """One file of the set and what it must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tokens: int
    sha256: str


class ShardIndex(BaseModel):
    """The contents of index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fulmen-shards-1"] = "fulmen-shards-1"
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer: str  # Tokenizer.fingerprint
    documents: int
    tokens: int
    bytes: int
    files: tuple[ShardFile, ...]
    documents_sha256: str


@dataclass(frozen=True)
class ShardSet:
    """An opened shard directory.

    Attributes:
        index: what index.json says.
        lengths_N: int64, tokens of each document.
        bytes_N: int64, UTF-8 bytes of each document's text.
        files: one memory map per .bin file.
    """

    directory: Path
    index: ShardIndex
    lengths_N: NDArray[np.int64]
    bytes_N: NDArray[np.int64]
    files: tuple[NDArray[np.unsignedinteger], ...]

    @property
    def tokens(self) -> int:
        """Tokens in all documents."""
        return self.index.tokens

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.index.documents

    @cached_property
    def starts_N(self) -> NDArray[np.int64]:
        """Where each document starts in the whole sequence."""
        return np.cumsum(self.lengths_N) - self.lengths_N

    @cached_property
    def _file_starts(self) -> NDArray[np.int64]:
        sizes = np.array([file.tokens for file in self.index.files], dtype=np.int64)
        return np.cumsum(sizes) - sizes

    def take(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens at `offsets` of the whole sequence, of any shape, as int64."""
        if len(self.files) == 1:
            return self.files[0][offsets].astype(np.int64)
        tokens = np.empty(offsets.shape, dtype=np.int64)
        owner = np.searchsorted(self._file_starts, offsets, side="right") - 1
        for file in np.unique(owner):
            here = owner == file
            tokens[here] = self.files[file][offsets[here] - self._file_starts[file]]
        return tokens

    def document(self, number: int) -> NDArray[np.int64]:
        """The ids of one document, int64."""
        start = int(self.starts_N[number])
        return self.take(np.arange(start, start + int(self.lengths_N[number])))


class _FileWriter:
    """Appends ids to numbered .bin files, hashing as it goes."""

    def __init__(self, directory: Path, dtype: np.dtype[np.unsignedinteger], file_tokens: int) -> None:
        self._directory, self._dtype, self._file_tokens = directory, dtype, file_tokens
        self.files: list[ShardFile] = []
        self._handle: BinaryIO | None = None
        self._tokens = 0
        self._digest = hashlib.sha256()

    def append(self, ids_T: NDArray[np.int64]) -> None:
        if self._handle is not None and self._tokens + len(ids_T) > self._file_tokens:
            self.close()
        if self._handle is None:
            self._handle = (self._directory / f"tokens-{len(self.files):05d}.bin").open("wb")
            self._tokens, self._digest = 0, hashlib.sha256()
        data = ids_T.astype(self._dtype).tobytes()
        self._handle.write(data)
        self._digest.update(data)
        self._tokens += len(ids_T)

    def close(self) -> None:
        if self._handle is None:
            return
        self._handle.close()
        name = Path(self._handle.name).name
        self.files.append(ShardFile(name=name, tokens=self._tokens, sha256=self._digest.hexdigest()))
        self._handle = None


def write_shards(
    directory: Path,
    documents: Iterable[TokenisedDocument],
    *,
    tokenizer: Tokenizer,
    file_tokens: int = 1 << 28,
) -> ShardIndex:
    """Write documents as a shard set into `directory`, which is made if need be; the index last.

    Args:
        documents: in the order in which they are to lie.
        tokenizer: the one that made the ids.
        file_tokens: a new file starts when the next document would exceed this (a longer document has a file of its
            own).

    Raises:
        UserError: there is no document, a document has no token, or an id is not the tokenizer's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / INDEX).unlink(missing_ok=True)  # what lies here stops being a shard set before its files change
    dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    writer = _FileWriter(directory, _DTYPES[dtype], file_tokens)
    table: list[tuple[int, int]] = []
    try:
        for document in documents:
            ids_T = np.asarray(document.ids, dtype=np.int64)
            if not ids_T.size:
                raise UserError("a document has no token", where=f"document {len(table)} for {directory}")
            if ids_T.min() < 0 or ids_T.max() >= tokenizer.vocab_size:
                raise UserError(
                    f"a token id is outside the vocabulary of {tokenizer.vocab_size}",
                    where=f"document {len(table)} for {directory}",
                )
            writer.append(ids_T)
            table.append((ids_T.size, document.bytes))
    finally:
        writer.close()
    if not table:
        raise UserError("there is no document to pack", where=str(directory), remedy="check the sources and filters")
    rows_N2 = np.array(table, dtype="<i8")
    (directory / _DOCUMENTS).write_bytes(rows_N2.tobytes())
    index = ShardIndex(
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.fingerprint,
        documents=len(table),
        tokens=int(rows_N2[:, 0].sum()),
        bytes=int(rows_N2[:, 1].sum()),
        files=tuple(writer.files),
        documents_sha256=hash_file(directory / _DOCUMENTS),
    )
    atomic_write_json(directory / INDEX, index.model_dump())
    return index


def open_shards(directory: Path, *, tokenizer: Tokenizer | None = None, verify: bool = True) -> ShardSet:
    """Open a shard set after checking that it is whole.

    Args:
        directory: what `write_shards` filled.
        tokenizer: refuse shards that another tokenizer made.
        verify: hash every file (sizes are checked in any case).

    Raises:
        UserError: no shard set is there, or the tokenizer does not fit.
        CorruptArtefact: a file is missing, truncated or altered, or the index contradicts itself.
    """
    directory = Path(directory)
    index = _read_index(directory)
    if tokenizer is not None and tokenizer.fingerprint != index.tokenizer:
        raise UserError(
            f"the shards were made with another tokenizer ({index.tokenizer[:12]}… of {index.vocab_size} tokens, "
            f"not {tokenizer.fingerprint[:12]}… of {tokenizer.vocab_size})",
            where=str(directory),
            remedy="pack the documents again with `fulmen data build`",
        )
    dtype = _DTYPES[index.dtype]
    for file in index.files:
        _check_file(directory / file.name, file.tokens * dtype.itemsize, file.sha256 if verify else None)
    _check_file(directory / _DOCUMENTS, index.documents * 16, index.documents_sha256 if verify else None)
    rows_N2 = np.fromfile(directory / _DOCUMENTS, dtype="<i8").reshape(-1, 2)
    if (
        rows_N2[:, 0].min(initial=1) < 1
        or rows_N2[:, 0].sum() != index.tokens
        or sum(file.tokens for file in index.files) != index.tokens
    ):
        raise CorruptArtefact(
            "documents and tokens do not add up", where=str(directory / INDEX), remedy="pack the documents again"
        )
    return ShardSet(
        directory=directory,
        index=index,
        lengths_N=rows_N2[:, 0].astype(np.int64),
        bytes_N=rows_N2[:, 1].astype(np.int64),
        files=tuple(np.memmap(directory / file.name, dtype=dtype, mode="r") for file in index.files),
    )


def _read_index(directory: Path) -> ShardIndex:
    if not directory.is_dir():
        raise UserError(
            f"there is no shard directory {directory}", remedy="check the path or run `fulmen data build` first"
        )
    document = read_json(directory / INDEX, "shard index")
    try:
        return ShardIndex.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptArtefact(
            f"bad shard index ({place}: {first['msg']})",
            where=str(directory / INDEX),
            remedy="pack the documents again",
        ) from None


def _check_file(path: Path, size: int, sha256: str | None) -> None:
    remedy = "pack the documents again with `fulmen data build`"
    if path.parent / path.name != path or not path.is_file():
        raise CorruptArtefact("missing shard file", where=str(path), remedy=remedy)
    if path.stat().st_size != size:
        raise CorruptArtefact(f"shard file has {path.stat().st_size} bytes, not {size}", where=str(path), remedy=remedy)
    if sha256 is not None and hash_file(path) != sha256:
        raise CorruptArtefact("shard file was altered: its hash differs", where=str(path), remedy=remedy)
