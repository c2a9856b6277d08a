"""`fulmen plugins`: every installed plugin, its origin, version, state and reason. Imports none of them.

`fulmen plugins new KIND NAME` writes a new one: see `plugins_new`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context
from fulmen_core.cli.output import print_json, print_table
from fulmen_core.plugin_records import PluginRecord

COLUMNS = ("name", "kind", "distribution", "version", "state", "reason")


def run(argv: Sequence[str]) -> int:
    """List the plugins; ``--json`` prints a list of objects."""
    if argv and argv[0] == "new":
        from fulmen_core.cli import plugins_new

        return plugins_new.run(argv[1:])
    parser = arguments.parser("fulmen plugins", "list the installed plugins, importing none", recipe=False)
    parser.epilog = "`fulmen plugins new backend|detector|source|benchmark NAME --out DIR` writes a new one, tested."
    args = parser.parse_args(argv)
    show(
        context.registry().records(),
        as_json=args.json,
        empty="No plugin is installed; pip install fulmen-backend-cpu is a start.",
    )
    return 0


def show(records: Sequence[PluginRecord], *, as_json: bool, empty: str) -> None:
    """Print records as JSON or as a table."""
    rows = [record.as_json() for record in records]
    if as_json:
        print_json(rows)
    else:
        print_table(COLUMNS, ([row[column] for column in COLUMNS] for row in rows), empty=empty)
