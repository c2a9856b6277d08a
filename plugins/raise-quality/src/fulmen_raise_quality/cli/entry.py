"""`fulmen raise quality`: finds the sub-verb."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.suggestions import remedy_for_unknown
from fulmen_safety import UserError

_USAGE = """usage: fulmen raise quality report FILE... [--scorer DIR] [--json]
       fulmen raise quality train --good FILE... [--bad FILE...] --out DIR [--json]

Says which documents of a corpus break which rule of quality, and trains a scorer from texts of your own.
`fulmen raise quality report --help` and `train --help` say more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen raise quality` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, or an argument or file is at fault.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "report":
        from fulmen_raise_quality.cli.report import run as report

        return report(argv[1:])
    if argv[0] == "train":
        from fulmen_raise_quality.cli.train import run as train

        return train(argv[1:])
    remedy = remedy_for_unknown(argv[0], ("report", "train"), kind="verbs")
    raise UserError(f"unknown verb {argv[0]!r}", where="fulmen raise quality", remedy=remedy)
