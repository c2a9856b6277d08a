"""`fulmen retrieval index`: documents into an index."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import note, print_json
from fulmen_core.errors import UserError
from fulmen_tool_retrieval.chunking import ChunkSizes
from fulmen_tool_retrieval.cli.embedder_options import add_embedder_options, remote_embedder
from fulmen_tool_retrieval.documents import Reading
from fulmen_tool_retrieval.embedder import Embedder
from fulmen_tool_retrieval.indexing import IndexOptions, update_index


def run(argv: Sequence[str]) -> int:
    """Make the index hold exactly the documents below the paths.

    Raises:
        UserError: an argument, a document, the index or the embedder is at fault. The index is then as it was.
    """
    arguments = parser("fulmen retrieval index", "index documents into one file", recipe=False)
    arguments.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="files and folders: txt, md, html, jsonl"
    )
    arguments.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="the index; what did not change is kept"
    )
    arguments.add_argument("--text-field", default="text", metavar="KEY", help="of JSON lines (%(default)s)")
    sizes = ChunkSizes()
    arguments.add_argument(
        "--chunk", type=int, default=sizes.size, metavar="N", help="characters; a Chinese one counts 3 (%(default)s)"
    )
    arguments.add_argument(
        "--overlap", type=int, default=sizes.overlap, metavar="N", help="of a chunk with the next (%(default)s)"
    )
    add_embedder_options(arguments)
    arguments.add_argument("--no-embeddings", action="store_true", help="full text alone")
    arguments.add_argument("--fresh", action="store_true", help="make the index anew")
    args = arguments.parse_args(argv)
    try:
        options = IndexOptions(ChunkSizes(args.chunk, args.overlap), _embedder(args))
    except ValueError as error:
        raise UserError(str(error), where="--chunk and --overlap") from error
    reading = Reading(args.paths, args.text_field)
    report = update_index(args.to, reading.documents(), options, fresh=args.fresh)
    for path, reason in reading.passed_over.items():
        note(f"fulmen: warning: passed over {path}: {reason}")
    if args.json:
        print_json(asdict(report) | {"index": str(args.to), "passed_over": reading.passed_over})
    else:
        print(
            f"{args.to}: {report.documents} documents in {report.chunks} chunks ({report.added} new, "
            f"{report.changed} changed, {report.unchanged} unchanged, {report.removed} removed)"
        )
    return 0


def _embedder(args: Namespace) -> Embedder | str | None:
    remote = remote_embedder(args)
    if args.no_embeddings:
        if remote is not None:
            raise UserError("--embeddings and --no-embeddings contradict each other", remedy="leave one of them out")
        return None
    return remote or "hashed"
