"""Packed rows: an epoch is every token once, documents keep apart, and a row does not depend on its batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_trainer.data.packing import DocumentStream, PackedBatch, document_order
from fulmen_trainer.data.shards import ShardSet, TokenisedDocument, open_shards, write_shards

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)
T = st.integers(1, 40)


@cache
def tokenizer() -> Tokenizer:
    return ByteLevelTokenizer.train(["some text"], 65_536)


def numbered(directory: Path, lengths: list[int], file_tokens: int = 25) -> ShardSet:
    """Documents whose tokens are all different, so that a token says where it is from."""
    starts = np.cumsum(lengths) - lengths
    documents = [TokenisedDocument(range(start, start + n), n) for start, n in zip(starts, lengths, strict=True)]
    write_shards(directory, documents, tokenizer=tokenizer(), file_tokens=file_tokens)
    return open_shards(directory)


def first_rows(shards: ShardSet, length: int, rows: int, seed: int = 0) -> PackedBatch:
    return DocumentStream("source", shards, seed).rows(np.arange(rows), length)


@given(LENGTHS, T, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_an_epoch_holds_every_token_exactly_once_with_documents_whole(
    lengths: list[int], length: int, seed: int
) -> None:
    with TemporaryDirectory() as folder:
        shards = numbered(Path(folder), lengths)
        epochs = 3
        batch = first_rows(shards, length, -(-epochs * shards.tokens // length), seed)
        stream = batch.tokens_BT1[:, :-1].ravel()[: epochs * shards.tokens].reshape(epochs, shards.tokens)
        for epoch, tokens in enumerate(stream):
            assert sorted(tokens.tolist()) == list(range(shards.tokens))
            order = document_order(seed, "source", epoch, shards.documents)
            assert tokens.tolist() == [token for number in order for token in shards.document(int(number)).tolist()]


@given(LENGTHS, T)
@settings(max_examples=50, deadline=None)
def test_the_last_token_of_a_row_is_the_first_of_the_next(lengths: list[int], length: int) -> None:
    with TemporaryDirectory() as folder:
        batch = first_rows(numbered(Path(folder), lengths), length, 6)
        assert batch.tokens_BT1[:-1, -1].tolist() == batch.tokens_BT1[1:, 0].tolist()


@given(LENGTHS, T)
@settings(max_examples=50, deadline=None)
def test_segments_and_positions_follow_the_documents(lengths: list[int], length: int) -> None:
    with TemporaryDirectory() as folder:
        shards = numbered(Path(folder), lengths)
        batch = first_rows(shards, length, 5)
        for tokens, segments, positions in zip(batch.tokens_BT1, batch.segments_BT1, batch.positions_BT1, strict=True):
            segment, position = 0, 0
            for index in range(1, length + 1):
                # A document starts where its first token stands, also when the same document comes twice in a row.
                if tokens[index] in shards.starts_N:
                    segment, position = segment + 1, 0
                else:
                    position += 1
                assert (segments[index], positions[index]) == (segment, position)
            assert segments[0] == positions[0] == 0


@given(LENGTHS, T)
@settings(max_examples=30, deadline=None)
def test_a_target_is_trained_exactly_when_it_continues_its_document(lengths: list[int], length: int) -> None:
    with TemporaryDirectory() as folder:
        shards = numbered(Path(folder), lengths)
        batch = first_rows(shards, length, 5)
        assert np.array_equal(batch.trained_BT, ~np.isin(batch.tokens_BT1[:, 1:], shards.starts_N))


@given(LENGTHS, T, st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_depend_on_the_rows_it_is_drawn_with(lengths: list[int], length: int, wanted: list[int]) -> None:
    with TemporaryDirectory() as folder:
        stream = DocumentStream("source", numbered(Path(folder), lengths), seed=3)
        together = stream.rows(np.array(wanted), length)
        for place, number in enumerate(wanted):
            alone = stream.rows(np.array([number]), length)
            assert np.array_equal(alone.tokens_BT1[0], together.tokens_BT1[place])
            assert np.array_equal(alone.segments_BT1[0], together.segments_BT1[place])


def test_the_order_changes_with_seed_source_and_epoch_and_with_nothing_else() -> None:
    orders = {
        tuple(document_order(seed, source, epoch, 50).tolist())
        for seed in (0, 1)
        for source in ("a", "b")
        for epoch in (0, 1)
    }
    assert len(orders) == 8
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_the_order_is_this_one_in_every_version() -> None:
    """A changed order would silently change what a resumed run reads."""
    assert document_order(7, "books", 2, 10).tolist() == GOLDEN


GOLDEN = [3, 2, 9, 4, 0, 8, 7, 5, 6, 1]
