"""`fulmen retrieval`: finds the sub-verb."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

_USAGE = """usage: fulmen retrieval index PATH... --to FILE [--json]
       fulmen retrieval search FILE QUERY [--json]
       fulmen retrieval show FILE [--json]

Indexes documents into one file, searches it, and shows what it holds. A server searches it for its model:
fulmen serve --model DIR --tools retrieval --tool-option retrieval.index=FILE
`fulmen retrieval index --help`, `search --help` and `show --help` say more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen retrieval` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, or an argument, document or index is at fault.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "index":
        from fulmen_tool_retrieval.cli.index import run as index

        return index(argv[1:])
    if argv[0] == "search":
        from fulmen_tool_retrieval.cli.search import run as search

        return search(argv[1:])
    if argv[0] == "show":
        from fulmen_tool_retrieval.cli.show import run as show

        return show(argv[1:])
    remedy = remedy_for_unknown(argv[0], ("index", "search", "show"), kind="verbs")
    raise UserError(f"unknown verb {argv[0]!r}", where="fulmen retrieval", remedy=remedy)
