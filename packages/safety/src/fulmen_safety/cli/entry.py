"""`fulmen raise`: finds the sub-verb."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

#: Sub-verb -> the module whose `run` it is. Imported when it is called.
VERBS = {
    "check": "fulmen_safety.cli.check",
    "explain": "fulmen_safety.cli.explain",
    "policy": "fulmen_safety.cli.policy",
    "audit": "fulmen_safety.cli.audit",
    "redact": "fulmen_safety.cli.redact",
    "eval": "fulmen_safety.cli.eval",
    "redteam": "fulmen_safety.cli.redteam",
    "accept": "fulmen_safety.cli.accept",
    "train": "fulmen_safety.cli.train",
}

_USAGE = """usage: fulmen raise check --text TEXT --phase input|output|corpus [--policy FILE] [--json]
       fulmen raise explain TEXT [--phase PHASE] [--policy FILE | --profile NAME] [--json]
       fulmen raise policy show|lint|schema [FILE] [--profile NAME] [--toml] [--json]
       fulmen raise redact [--replacement label|mask|surrogate] [--kinds KIND,...] [--policy FILE] [--json] < TEXT
       fulmen raise audit verify|prune|show [PLACE] [--policy FILE] [--json]
       fulmen raise eval --data FILE --phase input|output [--detector NAME] [--negatives FILE] [--json]
       fulmen raise redteam --data FILE [--attack NAME ...] [--detector NAME] [--json]
       fulmen raise accept --out DIR [--must-refuse FILE] [--must-answer FILE] [--questions FILE] [--corpus FILE]
       fulmen raise train --data FILE ... --out DIR [--negatives FILE ...] [--categories TOML] [--json]

RAISE judges text under one policy: the corpus, the reward, the input and the streamed output.
A detector's plugin may bring more: `fulmen raise VERB` is its verb raise-VERB.
`fulmen raise VERB --help` says more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen raise` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, wrong arguments, a faulty policy, a detector that cannot be used.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] in VERBS:
        code: int = import_module(VERBS[argv[0]]).run(argv[1:])
        return code
    from fulmen_core.cli import context
    from fulmen_core.cli.verbs import FIRST_PARTY

    plugged = f"raise-{argv[0]}"
    if context.registry().has_command(plugged):
        return context.registry().command(plugged)(argv[1:])
    if plugged in FIRST_PARTY:
        distribution = FIRST_PARTY[plugged][1]
        what = f"the verb 'raise {argv[0]}' comes with {distribution}, which is not installed"
        raise UserError(what, remedy=f"pip install {distribution}")
    remedy = remedy_for_unknown(argv[0], VERBS, kind="verbs")
    raise UserError(f"unknown verb {argv[0]!r}", where="fulmen raise", remedy=remedy)
