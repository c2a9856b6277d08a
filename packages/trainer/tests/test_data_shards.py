"""Shards give back what was written, and nothing less than whole is ever opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_trainer.data.shards import TokenisedDocument, open_shards, write_shards

DOCUMENTS = st.lists(st.lists(st.integers(0, 383), min_size=1, max_size=20), min_size=1, max_size=12)


@cache
def tokenizer(vocab_size: int = 384) -> Tokenizer:
    return ByteLevelTokenizer.train(["some text"], vocab_size)


def write(directory: Path, documents: list[list[int]], file_tokens: int = 1 << 20) -> None:
    write_shards(
        directory,
        (TokenisedDocument(ids, 3 * len(ids)) for ids in documents),
        tokenizer=tokenizer(),
        file_tokens=file_tokens,
    )


@given(DOCUMENTS, st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_every_document_comes_back_whatever_the_size_of_a_file(documents: list[list[int]], file_tokens: int) -> None:
    with TemporaryDirectory() as folder:
        write(Path(folder), documents, file_tokens)
        shards = open_shards(Path(folder), tokenizer=tokenizer())
        assert [shards.document(number).tolist() for number in range(shards.documents)] == documents
        assert shards.bytes_N.tolist() == [3 * len(ids) for ids in documents]
        whole = [token for ids in documents for token in ids]
        offsets = np.random.default_rng(0).integers(0, len(whole), (3, 5))
        assert shards.take(offsets).tolist() == np.array(whole)[offsets].tolist()
        largest = max(map(len, documents))
        assert all(file.tokens <= max(file_tokens, largest) for file in shards.index.files)


def test_a_vocabulary_beyond_65536_takes_four_bytes_per_token(tmp_path: Path) -> None:
    large = tokenizer(66_048)
    write_shards(tmp_path, [TokenisedDocument([66_000, 1], 1)], tokenizer=large)
    shards = open_shards(tmp_path, tokenizer=large)
    assert shards.document(0).tolist() == [66_000, 1]
    assert (tmp_path / "tokens-00000.bin").stat().st_size == 8


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path / "shards", [[1, 2, 3], [4, 5], [6]], file_tokens=4)
    return tmp_path / "shards"


def test_shards_of_another_tokenizer_are_refused(directory: Path) -> None:
    other = ByteLevelTokenizer.train(["other text " * 9], 384)
    with pytest.raises(UserError, match="made with another tokenizer"):
        open_shards(directory, tokenizer=other)


@pytest.mark.parametrize("name", ["tokens-00000.bin", "tokens-00001.bin", "documents.bin"])
def test_a_truncated_file_is_refused_by_name(directory: Path, name: str) -> None:
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[:-1])
    with pytest.raises(CorruptArtefact, match=name):
        open_shards(directory, verify=False)


@pytest.mark.parametrize("name", ["tokens-00000.bin", "documents.bin"])
def test_one_flipped_bit_is_refused_by_name(directory: Path, name: str) -> None:
    data = bytearray((directory / name).read_bytes())
    data[0] ^= 1
    (directory / name).write_bytes(data)
    with pytest.raises(CorruptArtefact, match=name):
        open_shards(directory)


@pytest.mark.parametrize("name", ["tokens-00001.bin", "documents.bin"])
def test_a_missing_file_is_refused_by_name(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CorruptArtefact, match=name):
        open_shards(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "fulmen-shards-0"},
        {"dtype": "float64"},
        {"tokens": 5},
        {"documents": -1},
        {"surprise": 1},
        {"files": []},
        {"files": [{"name": "../tokens-00000.bin", "tokens": 6, "sha256": ""}]},
    ],
)
def test_an_index_that_lies_is_refused(directory: Path, change: dict[str, object]) -> None:
    path = directory / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CorruptArtefact):
        open_shards(directory, verify=False)


def test_an_interrupted_writer_leaves_no_shard_set_not_even_the_one_before(directory: Path) -> None:
    def documents() -> Iterator[TokenisedDocument]:
        yield TokenisedDocument([1], 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(directory, documents(), tokenizer=tokenizer())
    with pytest.raises(UserError, match="shard index"):
        open_shards(directory)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], "no document to pack"),
        ([[1], []], "has no token"),
        ([[384]], "outside the vocabulary"),
        ([[-1]], "outside"),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path: Path, documents: list[list[int]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        write(tmp_path, documents)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        open_shards(tmp_path / "nowhere")
