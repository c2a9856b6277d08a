"""`fulmen retrieval show`: what an index holds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json, print_table
from fulmen_tool_retrieval.index_file import check_whole, counts, documents_of, open_index, read_meta, reading
from fulmen_tool_retrieval.passages import visible


def run(argv: Sequence[str]) -> int:
    """Check the file and print its documents and options.

    Raises:
        UserError: there is no such index.
        CorruptArtefact: it is damaged.
    """
    arguments = parser("fulmen retrieval show", "show what an index holds", recipe=False)
    arguments.add_argument("index", type=Path, metavar="FILE", help="what `fulmen retrieval index` made")
    args = arguments.parse_args(argv)
    with contextlib.closing(open_index(args.index)) as connection, reading(args.index):
        check_whole(connection)
        held = counts(connection)
        options = read_meta(connection, "options")
        documents = documents_of(connection)
    if args.json:
        print_json(held | options | {"bytes": args.index.stat().st_size, "sources": documents})
        return 0
    rows = [
        (visible(one["source"]), visible(one["title"]), str(one["characters"]), str(one["chunks"])) for one in documents
    ]
    print_table(("source", "title", "characters", "chunks"), rows, empty="No document.")
    embedder = " ".join(str(part) for part in options["embedder"].values() if part is not None) or "none"
    chunks = options["chunks"]
    print(
        f"{held['documents']} documents, {held['chunks']} chunks of at most {chunks['size']} with {chunks['overlap']} "
        f"in common, embeddings: {embedder}"
    )
    return 0
