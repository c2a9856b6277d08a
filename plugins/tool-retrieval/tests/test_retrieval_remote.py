"""A server's embeddings serve in place of the hashed ones; what goes wrong with the server is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fulmen_core.errors import UserError
from fulmen_tool_retrieval.documents import Document
from fulmen_tool_retrieval.indexing import IndexOptions, update_index
from fulmen_tool_retrieval.remote_embedder import EmbeddingsUnavailable, RemoteEmbedder
from fulmen_tool_retrieval.search import Index


def test_an_index_of_a_servers_embeddings_is_searched_with_them(
    tmp_path: Path, handbook: list[Document], embedding_server
) -> None:
    remote = RemoteEmbedder(embedding_server.url, "small", "sk-test")
    documents = [*handbook, *(Document(f"more-{n}", "", f"page {n}") for n in range(40))]
    assert update_index(tmp_path / "a.db", documents, IndexOptions(embedder=remote)).embedded == 45
    assert [len(call["input"]) for call in embedding_server.calls] == [32, 13]
    assert set(embedding_server.keys) == {"Bearer sk-test"}
    hits = Index(tmp_path / "a.db", remote).search("the lawnmowers", 1, "vectors")
    assert hits[0].source == "trees.md"
    assert hits[0].score == pytest.approx(
        float(
            embedding_server.embedder.embed_query("the lawnmowers")
            @ embedding_server.embedder.embed_query(f"Gardening\n{hits[0].text}")
        ),
        abs=2e-3,
    )


def test_an_index_never_says_where_to_connect_to(tmp_path: Path, handbook: list[Document], embedding_server) -> None:
    update_index(tmp_path / "a.db", handbook, IndexOptions(embedder=RemoteEmbedder(embedding_server.url, "small")))
    assert embedding_server.url.encode() not in (tmp_path / "a.db").read_bytes()
    with pytest.raises(UserError, match="made with the embeddings of 'small' on a server"):
        Index(tmp_path / "a.db")
    with pytest.raises(UserError, match="made with the embeddings of 'small' on a server"):
        Index(tmp_path / "a.db", RemoteEmbedder(embedding_server.url, "large"))


@pytest.mark.parametrize(
    "fault",
    [
        "busy",
        "no json",
        "{}",
        '{"data": []}',
        json.dumps({"data": [{"index": 0, "embedding": "text"}]}),
        json.dumps({"data": [{"index": 0, "embedding": [float("nan")]}]}),
    ],
)
def test_a_server_that_answers_otherwise_is_told_in_a_sentence(embedding_server, fault: str) -> None:
    embedding_server.fault = fault
    with pytest.raises(EmbeddingsUnavailable, match=embedding_server.url):
        RemoteEmbedder(embedding_server.url, "small").embed_query("x", 5)


def test_a_server_that_is_not_there_is_told_in_time() -> None:
    with pytest.raises(EmbeddingsUnavailable, match="cannot be had"):
        RemoteEmbedder("http://127.0.0.1:9/v1", "small").embed_query("x", 2)


@pytest.mark.parametrize(("url", "model"), [("file:///etc/passwd", "m"), ("127.0.0.1:8000", "m"), ("http://x/v1", "")])
def test_what_is_no_server_is_refused(url: str, model: str) -> None:
    with pytest.raises(UserError):
        RemoteEmbedder(url, model)
