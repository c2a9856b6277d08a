"""Which policy a verb works under: `--policy FILE` or `--profile NAME`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fulmen_core.errors import UserError
from fulmen_safety.inheritance import PROFILES


def add_policy(parser: ArgumentParser) -> None:
    """Add the two options."""
    parser.add_argument("--policy", type=Path, metavar="FILE", help="policy file; default: the one in the package")
    parser.add_argument("--profile", choices=tuple(PROFILES), help="a policy of the package, in place of a file")


def given_policy(options: Namespace, also: Path | None = None) -> Path | None:
    """Return what the options name, as `load_policy` takes it; None: the default policy.

    Args:
        options: parsed.
        also: a file that was named otherwise.

    Raises:
        UserError: they name two.
    """
    named = [Path(one) for one in (also, options.policy, options.profile) if one is not None]
    if len(named) > 1:
        raise UserError(f"{named[0]} and {named[1]} are two policies", where="the command line", remedy="leave one out")
    return named[0] if named else None
