"""`fulmen usage`: what keys have used and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json, print_table
from fulmen_serving.cli.platform_options import add_platform_option, required_database


def run(argv: Sequence[str]) -> int:
    """Sum usage by organisation, key and model.

    Raises:
        UserError: an argument or the database is at fault.
    """
    arguments = parser("fulmen usage", "show what keys have used and what it costs", recipe=False)
    add_platform_option(arguments, "the database of the server")
    arguments.add_argument("--key", help="only of this key, by its id or prefix")
    arguments.add_argument("--organisation", help="only of this organisation")
    arguments.add_argument("--since", metavar="TIME", help="a time (2027-01-31) or a span (7d); from its hour on")
    arguments.add_argument("--hourly", action="store_true", help="a row for each hour")
    args = arguments.parse_args(argv)

    database = required_database(args.platform)
    try:
        from fulmen_serving.platform.moments import moment_ago
        from fulmen_serving.platform.report import usage_report
        from fulmen_serving.platform.usage_store import UsageStore

        since = None if args.since is None else moment_ago(args.since)
        report = usage_report(
            UsageStore(database).report(key=args.key, organisation=args.organisation, since=since, hourly=args.hourly)
        )
    finally:
        database.close()
    if args.json:
        print_json(report)
        return 0
    columns = ["organisation", "key", "model", *(["hour"] if args.hourly else [])]
    counts = ["requests", "prompt_tokens", "completion_tokens", "cost"]
    rows = [[str(row[column]) for column in [*columns, *counts]] for row in report["data"]]
    if rows:
        rows.append(["total", *[""] * (len(columns) - 1), *(str(report["total"][count]) for count in counts)])
    names = [column.replace("_", " ") for column in [*columns, *counts]]
    print_table(names, rows, empty="Nothing was used.")
    return 0
