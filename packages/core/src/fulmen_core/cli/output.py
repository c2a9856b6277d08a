"""What verbs print: JSON or a table on stdout, notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(obj: Any) -> None:
    """Print a result as indented JSON on stdout."""
    print(json.dumps(obj, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows under headings on stdout, or the sentence `empty` if there is none. Cells are plain text."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    # A pipe has no width to fold to: it gets every cell whole, so that grep finds what it looks for.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table if table.row_count else Text(empty))


def _printable(cell: str) -> str:
    """The cell with control characters spelled out: metadata of a stranger must not steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cell)


def note(message: str) -> None:
    """Print one line on stderr."""
    print(message, file=sys.stderr)
