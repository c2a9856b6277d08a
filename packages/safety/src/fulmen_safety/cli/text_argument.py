"""A text that is given on the command line or on standard input."""

from __future__ import annotations

import sys

from fulmen_core.errors import UserError


def given_text(given: str, name: str) -> str:
    """Return the text that an argument holds; ``-`` reads standard input.

    Args:
        given: the argument.
        name: what it is called, for sentences.

    Raises:
        UserError: it is not UTF-8.
    """
    if given != "-":
        if any("\ud800" <= char <= "\udfff" for char in given):
            raise UserError(
                f"{name} is not valid UTF-8", where="the command line", remedy="check the terminal's encoding"
            )
        return given
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = "standard input"
        raise UserError(f"invalid UTF-8 at byte {error.start}", where=where, remedy="convert it to UTF-8") from error
