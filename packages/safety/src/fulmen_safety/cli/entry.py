"""`fulmen raise`: finds the sub-verb."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

#: Verb -> the module whose `run` takes the arguments after it. Imported when it is asked for.
VERBS = {
    "check": "fulmen_safety.cli.check",
    "policy": "fulmen_safety.cli.policy",
    "eval": "fulmen_safety.cli.eval",
}

_USAGE = """usage: fulmen raise check --text TEXT --phase input|output|corpus [--policy FILE] [--json]
       fulmen raise policy show [FILE] [--toml] [--json]
       fulmen raise policy lint [FILE] [--json]
       fulmen raise eval --data FILE --phase input|output [--detector NAME] [--negatives FILE] [--policy FILE] [--json]

RAISE judges text under one policy: the corpus, the reward, the input and the streamed output.
`fulmen raise VERB --help` says more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen raise` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, wrong arguments, a faulty policy, a detector that cannot be used.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] not in VERBS:
        remedy = remedy_for_unknown(argv[0], VERBS, kind="verbs")
        raise UserError(f"unknown verb {argv[0]!r}", where="fulmen raise", remedy=remedy)
    code: int = importlib.import_module(VERBS[argv[0]]).run(argv[1:])
    return code
