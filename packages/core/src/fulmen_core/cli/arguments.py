"""The argument parser of every verb: faults are `UserError`s of one sentence, and the usual arguments are spelled once.

```python
parser = arguments.parser("fulmen sft", "fine-tune on instructions")
parser.add_argument("--run", type=Path, required=True)
args = parser.parse_args(argv)  # .recipe: Path | None, .overrides: list[str], .json: bool
config = load_recipe(SftConfig, args.recipe, args.overrides)
```
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest

#: Options that `fulmen` itself takes, before the verb.
GLOBAL_OPTIONS = ("--no-plugin", "--plugin", "--debug", "--threads")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose faults are `UserError`s, and whose ``key=value`` tail may stand among options."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse like `argparse`, but take ``key=value`` words from anywhere when the parser has a recipe.

        Raises:
            UserError: an argument is missing, unknown or does not fit.
        """
        namespace, rest = self.parse_known_args(None if args is None else list(args), namespace)
        if hasattr(namespace, "overrides"):
            namespace.overrides = [*namespace.overrides, *(word for word in rest if _is_override(word))]
            rest = [word for word in rest if not _is_override(word)]
        if rest:
            self._refuse(rest[0])
        return namespace

    def error(self, message: str) -> NoReturn:
        """Raise the fault that argparse found."""
        raise UserError(_without_password(message), where=self.prog, remedy=f"see `{self.prog} --help`") from None

    def _refuse(self, word: str) -> NoReturn:
        option = word.partition("=")[0]
        if option in GLOBAL_OPTIONS:
            raise UserError(
                f"{option} belongs before the verb", remedy=f"write `fulmen {option} ... {self.prog.partition(' ')[2]}`"
            )
        near = closest(option, self._option_string_actions) if word.startswith("-") else ""
        remedy = f"did you mean {near}?" if near else f"see `{self.prog} --help`"
        # of an option only the name: its value may be a secret meant for another
        shown = option if word.startswith("-") else _without_password(word)
        raise UserError(f"unknown argument {shown!r}", where=self.prog, remedy=remedy)


def parser(prog: str, summary: str, *, recipe: bool = True, json: bool = True) -> Parser:
    """Make the parser of a verb.

    Args:
        prog: e.g. ``"fulmen sft"``.
        summary: one line for ``--help``.
        recipe: add ``--recipe FILE`` (`args.recipe`) and the ``key=value`` tail (`args.overrides`).
        json: add ``--json`` (`args.json`): the result as JSON on stdout; everything else goes to stderr anyway.
    """
    made = Parser(prog=prog, description=summary[:1].upper() + summary[1:] + ".", allow_abbrev=False)
    if recipe:
        made.add_argument("--recipe", type=Path, metavar="FILE", help="TOML file with the config; default: built in")
        made.add_argument(
            "overrides", nargs="*", metavar="key=value", help="change one key of the recipe, e.g. steps=100", default=[]
        )
    if json:
        made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    return made


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")
