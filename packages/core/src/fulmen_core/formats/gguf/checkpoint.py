"""A GGUF file as a `ForeignCheckpoint`: header, then config, then which tensor is which; weights on demand."""

from __future__ import annotations

from pathlib import Path

from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.gguf.architectures import architecture_of, config_document, family_of
from fulmen_core.formats.gguf.container import GgufFile
from fulmen_core.formats.gguf.fields import Fields
from fulmen_core.formats.gguf.tensors import FREQUENCIES, check_tensors, loader, read_tensor, sources
from fulmen_core.formats.gguf.vocabulary import tokenizer_files
from fulmen_core.model.config_file import parse_config

_LONGEST_FREQUENCIES = 4096


def is_gguf(path: Path) -> bool:
    """Whether `path` is a file that calls itself GGUF by its suffix or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def read(path: Path) -> ForeignCheckpoint:
    """Read a GGUF file: everything but the weights, which `ForeignCheckpoint.load` reads one by one.

    Raises:
        UserError: the file cannot be read, or asks for what is not supported: an architecture, a tensor type, a
            tokenizer. Names it.
        CorruptArtefact: the file is truncated or lies about what it holds; names the field or tensor.
    """
    file = GgufFile(path)
    fields = Fields(file.metadata, path)
    if (parts := fields.integer("split.count", 1)) > 1:
        raise fields.refuse(f"it is one of {parts} parts", remedy="join them with `llama-gguf-split --merge`")
    architecture = architecture_of(fields)
    document = config_document(fields, file.tensors, _frequencies(file))
    config = parse_config(document, str(path))
    found = sources(config, interleaved=architecture.interleaved)
    check_tensors(file, fields, config, found)
    files = tokenizer_files(fields, config.vocab_size)
    return ForeignCheckpoint(family_of(fields), config, loader(file, found), files)


def _frequencies(file: GgufFile) -> list[float] | None:
    info = file.tensors.get(FREQUENCIES)
    if info is None:
        return None
    if len(info.shape) != 1 or info.shape[0] > _LONGEST_FREQUENCIES:
        raise file.corrupt(f"tensor {FREQUENCIES!r} has the shape {info.shape}")
    return [float(value) for value in read_tensor(file, FREQUENCIES)]
