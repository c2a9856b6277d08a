"""`fulmen raise`: finds the sub-verb."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

_USAGE = """usage: fulmen raise check --text TEXT --phase input|output|corpus [--policy FILE] [--json]
       fulmen raise policy show [FILE] [--toml] [--json]
       fulmen raise policy lint [FILE] [--json]

RAISE judges text under one policy: the corpus, the reward, the input and the streamed output.
A detector's plugin may bring more: `fulmen raise VERB` is its verb raise-VERB.
`fulmen raise check --help` and `fulmen raise policy --help` say more."""


def run(argv: Sequence[str]) -> int:
    """Run `fulmen raise` with the arguments after the verb; return the exit code.

    Raises:
        UserError: an unknown sub-verb, wrong arguments, a faulty policy, a detector that cannot be used.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "check":
        from fulmen_safety.cli.check import run as check

        return check(argv[1:])
    if argv[0] == "policy":
        from fulmen_safety.cli.policy import run as policy

        return policy(argv[1:])
    from fulmen_core.cli import context
    from fulmen_core.cli.verbs import FIRST_PARTY

    plugged = f"raise-{argv[0]}"
    if context.registry().has_command(plugged):
        return context.registry().command(plugged)(argv[1:])
    if plugged in FIRST_PARTY:
        distribution = FIRST_PARTY[plugged][1]
        what = f"the verb 'raise {argv[0]}' comes with {distribution}, which is not installed"
        raise UserError(what, remedy=f"pip install {distribution}")
    remedy = remedy_for_unknown(argv[0], ("check", "policy"), kind="verbs")
    raise UserError(f"unknown verb {argv[0]!r}", where="fulmen raise", remedy=remedy)
