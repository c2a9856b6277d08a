"""Searches one index: by terms (bm25), by vectors (cosine), or by both, fused."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_tool_retrieval.embedder import Embedder, Vectors_ND
from fulmen_tool_retrieval.fusion import fused
from fulmen_tool_retrieval.hashed_ngrams import HashedNgrams
from fulmen_tool_retrieval.index_file import open_index, read_meta, reading
from fulmen_tool_retrieval.terms import match_expression

Mode = Literal["hybrid", "terms", "vectors"]
MODES: tuple[Mode, ...] = get_args(Mode)

#: How many of each ranking are fused.
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        source, title: of its document.
        start, end: its place in the document's text.
        text: the passage.
        score: larger is better; what it means depends on the mode, so compare within one search.
    """

    source: str
    title: str
    start: int
    end: int
    text: str
    score: float


class Index:
    """An index opened to be searched, from any thread. Its vectors are in memory: of the hashed kind, 8 kB a chunk.

    Args:
        path: the file.
        remote: the embedder of an index that was made with a remote one. An index never says where to connect to:
            it may come from somebody else.

    Raises:
        UserError: there is no such index, or it needs a remote embedder that was not given.
        CorruptArtefact: the file is no index, or damaged.
    """

    def __init__(self, path: Path, remote: Embedder | None = None) -> None:
        self._connection = open_index(path)
        self._lock = threading.Lock()
        with reading(path):
            self.options = read_meta(self._connection, "options")
            self._embedder = self._choose(path, remote)
            self._chunks, self._vectors_ND = self._read_vectors()

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def search(self, query: str, top_k: int = 5, mode: Mode = "hybrid", timeout: float | None = None) -> list[Hit]:
        """Return at most `top_k` passages, the best first. Of passages that overlap only the better one is given.

        Args:
            query: words or a question.
            top_k: how many.
            mode: by what; ``hybrid`` is by terms alone if the index has no vectors.
            timeout: seconds for a remote embedder.

        Raises:
            UserError: the index has no vectors and `mode` asks for them, or the remote embedder failed.
        """
        if mode == "vectors" and self._embedder is None:
            raise UserError("this index has no vectors", remedy="search by terms, or make it anew with an embedder")
        rankings: list[list[tuple[int, float]]] = []
        if mode != "vectors":
            rankings.append(self._by_terms(query))
        if mode != "terms" and self._embedder is not None:
            rankings.append(self._by_vectors(self._embedder, query, timeout))
        ranked = rankings[0] if len(rankings) == 1 else fused([id for id, _ in ranking] for ranking in rankings)
        hits: list[Hit] = []
        for id, score in ranked:
            if len(hits) == top_k:
                break
            hit = self._hit(id, score)
            if not any(_overlap(hit, other) for other in hits):
                hits.append(hit)
        return hits

    def _by_terms(self, query: str) -> list[tuple[int, float]]:
        expression = match_expression(query)
        if not expression:
            return []
        statement = (
            "SELECT rowid, -bm25(chunk_terms) FROM chunk_terms WHERE chunk_terms MATCH ? "
            "ORDER BY bm25(chunk_terms), rowid LIMIT ?"
        )
        with self._lock:
            return self._connection.execute(statement, (expression, DEPTH)).fetchall()

    def _by_vectors(self, embedder: Embedder, query: str, timeout: float | None) -> list[tuple[int, float]]:
        vector_D = embedder.embed_query(query, timeout)
        if not len(self._chunks) or not vector_D.any():
            return []
        if vector_D.shape[0] != self._vectors_ND.shape[1]:
            raise UserError(
                f"the embedder gives vectors of {vector_D.shape[0]}, the index has {self._vectors_ND.shape[1]}",
                remedy="give the embedder that the index was made with",
            )
        scores_N = self._vectors_ND @ vector_D
        best = np.argpartition(-scores_N, DEPTH - 1)[:DEPTH] if len(scores_N) > DEPTH else np.arange(len(scores_N))
        best = best[np.lexsort((self._chunks[best], -scores_N[best]))]
        return [(int(self._chunks[at]), float(scores_N[at])) for at in best if scores_N[at] > embedder.floor]

    def _hit(self, chunk: int, score: float) -> Hit:
        statement = (
            'SELECT d.source, d.title, c.start, c."end", c.text '
            "FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?"
        )
        with self._lock:
            source, title, start, end, text = self._connection.execute(statement, (chunk,)).fetchone()
        return Hit(source, title, start, end, text, score)

    def _choose(self, path: Path, remote: Embedder | None) -> Embedder | None:
        made_with = self.options["embedder"]
        if made_with["kind"] is None:
            return None
        if made_with["kind"] == "hashed":
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'frequencies'").fetchone()
            try:
                return HashedNgrams.load(row[0])
            except (ValueError, TypeError) as error:
                raise CorruptArtefact(f"the index {path} is damaged ({error})", remedy="make it again") from error
        if remote is None or dict(remote.identity()) != made_with:
            raise UserError(
                f"the index {path} was made with the embeddings of {made_with.get('model')!r} on a server",
                remedy="name that server and the model: --embeddings URL --embeddings-model NAME, or as options of the "
                "tool retrieval.embeddings=URL and retrieval.embeddings_model=NAME",
            )
        return remote

    def _read_vectors(self) -> tuple[NDArray[np.int64], Vectors_ND]:
        rows = self._connection.execute("SELECT chunk, vector FROM vectors ORDER BY chunk").fetchall()
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        if len({len(vector) for _, vector in rows}) != 1 or len(rows[0][1]) % 2:
            raise sqlite3.DatabaseError("its vectors are not of one length")
        vectors_ND = np.frombuffer(b"".join(vector for _, vector in rows), np.float16).reshape(len(rows), -1)
        return np.array([chunk for chunk, _ in rows], np.int64), vectors_ND.astype(np.float32)


def _overlap(one: Hit, other: Hit) -> bool:
    """Whether two passages of one document share more than half of the shorter."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    return one.source == other.source and 2 * shared > min(one.end - one.start, other.end - other.start)
