"""The options before the verb. They are read first, so that a plugin is blocked before anything could import it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fulmen_core.errors import UserError


@dataclass(frozen=True)
class GlobalOptions:
    """What one invocation was told before its verb."""

    disabled: tuple[str, ...] = ()  # --no-plugin
    files: tuple[Path, ...] = ()  # --plugin
    threads: int | None = None
    debug: bool = False


def split(words: list[str]) -> tuple[GlobalOptions, str, list[str]]:
    """Split the command line into the options before the verb, the verb (or ``--help``, ``--version``, ``""``), and the
    rest.

    Raises:
        UserError: an option is unknown or lacks its value.
    """
    options = GlobalOptions()
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option in ("-h", "--help", "--version") and not equals:
            return options, "--help" if option == "-h" else option, rest
        if option == "--debug" and not equals:
            options = replace(options, debug=True)
            continue
        if option not in ("--no-plugin", "--plugin", "--threads"):
            raise _unknown(option)
        if not equals and not rest:
            raise UserError(f"{option} needs a value", remedy="see `fulmen --help`")
        options = _with(options, option, value if equals else rest.pop(0))
    return options, rest[0] if rest else "", rest[1:]


def _with(options: GlobalOptions, option: str, value: str) -> GlobalOptions:
    if option == "--no-plugin":
        return replace(options, disabled=(*options.disabled, value))
    if option == "--plugin":
        return replace(options, files=(*options.files, Path(value)))
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"--threads needs a number of at least 1, not {value!r}")
    return replace(options, threads=int(value))


def _unknown(option: str) -> UserError:
    from fulmen_core.suggestions import closest

    near = closest(option, ("--no-plugin", "--plugin", "--threads", "--debug", "--version", "--help"))
    return UserError(f"unknown option {option}", remedy=f"did you mean {near}?" if near else "see `fulmen --help`")
