"""`fulmen raise probe`: finds the sub-verb."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.suggestions import remedy_for_unknown
from fulmen_safety import UserError

_USAGE = """usage: fulmen raise probe train --model DIR --data FILE... --out DIR [--layer N] [--pool mean|last] [--json]

Trains a linear head on a model's hidden states from labelled texts.
`fulmen raise probe train --help` says more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen raise probe` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, or an argument, file or model is at fault.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "train":
        from fulmen_raise_probe.cli.train import run as train

        return train(argv[1:])
    remedy = remedy_for_unknown(argv[0], ("train",), kind="verbs")
    raise UserError(f"unknown verb {argv[0]!r}", where="fulmen raise probe", remedy=remedy)
