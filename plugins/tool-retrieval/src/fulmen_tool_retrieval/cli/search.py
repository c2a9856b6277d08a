"""`fulmen retrieval search`: passages of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json, print_table
from fulmen_core.errors import UserError
from fulmen_tool_retrieval.cli.embedder_options import add_embedder_options, remote_embedder
from fulmen_tool_retrieval.passages import visible
from fulmen_tool_retrieval.search import MODES, Index

_SHOWN = 160


def run(argv: Sequence[str]) -> int:
    """Search and print the passages, the best first.

    Raises:
        UserError: an argument, the index or the embedder is at fault.
    """
    arguments = parser("fulmen retrieval search", "search an index", recipe=False)
    arguments.add_argument("index", type=Path, metavar="FILE", help="what `fulmen retrieval index` made")
    arguments.add_argument("query", help="words or a question")
    arguments.add_argument("--top", type=int, default=5, metavar="N", help="passages (%(default)s)")
    arguments.add_argument("--by", choices=MODES, default="hybrid", help="default: %(default)s")
    add_embedder_options(arguments)
    args = arguments.parse_args(argv)
    if args.top < 1:
        raise UserError(f"--top is {args.top}", remedy="give 1 or more")
    hits = Index(args.index, remote_embedder(args)).search(args.query, args.top, args.by)
    if args.json:
        print_json([asdict(hit) for hit in hits])
    else:
        rows = [
            (f"{hit.score:.4f}", f"{visible(hit.source)}:{hit.start}-{hit.end}", _beginning(visible(hit.text)))
            for hit in hits
        ]
        print_table(("score", "passage", "text"), rows, empty="No passage fits.")
    return 0


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
