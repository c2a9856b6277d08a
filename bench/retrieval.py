"""How well the retrieval plugin finds the passage that answers a question: terms, vectors, and both fused.

    python bench/retrieval.py xquad_en_zh.jsonl.gz cmrc2018.jsonl.gz --json

Each file is JSON Lines (gzip or not) of questions with the passage that answers them: ``{"question", "context"}``,
with ``"lang"`` if it holds several languages. The different passages of one language of one file are the corpus, one
document each; ``--beside FILE`` adds the ``"text"`` of another file's lines as passages that answer nothing. A question
counts as answered at k if a passage of its document is among the first k. ``--embeddings URL --embeddings-model NAME``
measures a server's embeddings in place of the hashed ones; ``--misspell`` exchanges or drops a letter of every longer
Latin word of the questions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fulmen_tool_retrieval.documents import Document
from fulmen_tool_retrieval.indexing import IndexOptions, update_index
from fulmen_tool_retrieval.remote_embedder import RemoteEmbedder
from fulmen_tool_retrieval.search import MODES, Index, Mode

_TOP = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Index each corpus, ask every question in every mode, and print a cell for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--most", type=int, default=1000, metavar="N", help="questions of a corpus (%(default)s)")
    parser.add_argument("--embeddings", metavar="URL")
    parser.add_argument("--embeddings-model", metavar="NAME", default="")
    parser.add_argument("--misspell", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    remote = RemoteEmbedder(args.embeddings, args.embeddings_model) if args.embeddings else None
    beside = [row["text"] for file in args.beside for row in rows_of(file)]
    cells = []
    for file in args.files:
        by_language: dict[str, list[dict[str, Any]]] = {}
        for row in rows_of(file):
            by_language.setdefault(row.get("lang", ""), []).append(row)
        for language, rows in by_language.items():
            name = file.name.partition(".")[0] + (f" {language}" if language else "")
            cells += measure(name, rows, beside, remote, args.most, args.misspell)
    if args.json:
        print(json.dumps(cells, indent=2, ensure_ascii=False))
    else:
        for cell in cells:
            print("  ".join(f"{key} {value}" for key, value in cell.items()))
    return 0


def measure(
    name: str,
    rows: Sequence[dict[str, Any]],
    beside: Sequence[str],
    remote: RemoteEmbedder | None,
    most: int,
    misspell: bool,
) -> list[dict[str, Any]]:
    """Index the passages of `rows` and return a cell for each mode."""
    passages = list(dict.fromkeys(row["context"] for row in rows))
    source_of = {passage: f"passage-{place}" for place, passage in enumerate(passages)}
    documents = [Document(source, "", passage) for passage, source in source_of.items()]
    documents += [Document(f"beside-{place}", "", text) for place, text in enumerate(beside)]
    asked = rows[:: max(1, len(rows) // most)][:most]
    if misspell:
        chance = random.Random(0)
        asked = [row | {"question": misspelt(row["question"], chance)} for row in asked]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        begun = time.perf_counter()
        report = update_index(path, documents, IndexOptions(embedder=remote or "hashed"))
        seconds = time.perf_counter() - begun
        shape = {
            "corpus": name,
            "documents": report.documents,
            "chunks": report.chunks,
            "questions": len(asked),
            "index_s": round(seconds, 2),
            "index_kb_per_chunk": round(path.stat().st_size / 1024 / report.chunks, 1),
        }
        index = Index(path, remote)
        cells = [shape | {"by": mode} | asking(index, asked, source_of, mode) for mode in MODES]
        index.close()
    return cells


def asking(index: Index, asked: Sequence[dict[str, Any]], source_of: dict[str, str], mode: Mode) -> dict[str, float]:
    """Ask every question; return recall at 1 and 5, the mean reciprocal rank in ten, and the time of a search."""
    ranks: list[int | None] = []
    begun = time.perf_counter()
    for row in asked:
        sources = list(dict.fromkeys(hit.source for hit in index.search(row["question"], _TOP, mode)))
        wanted = source_of[row["context"]]
        ranks.append(sources.index(wanted) + 1 if wanted in sources else None)
    seconds = time.perf_counter() - begun
    found = [rank for rank in ranks if rank]
    return {
        "recall@1": round(sum(rank == 1 for rank in found) / len(ranks), 4),
        "recall@5": round(sum(rank <= 5 for rank in found) / len(ranks), 4),
        "mrr@10": round(sum(1 / rank for rank in found) / len(ranks), 4),
        "ms": round(seconds / len(ranks) * 1000, 2),
    }


def misspelt(question: str, chance: random.Random) -> str:
    """The question with one inner letter of every longer Latin word dropped, or exchanged with the next."""
    words = question.split(" ")
    for place, word in enumerate(words):
        if len(word) > 4 and word.isascii():
            at = chance.randrange(1, len(word) - 2)
            words[place] = (
                word[:at] + (word[at + 1] + word[at] if chance.random() < 0.5 else word[at + 1]) + word[at + 2 :]
            )
    return " ".join(words)


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON Lines."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
