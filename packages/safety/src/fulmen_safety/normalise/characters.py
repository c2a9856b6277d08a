"""The unescaped view of a text that streams: single characters that are written as escapes, in their places.

``\\u0041`` in the JSON of a call of a tool, ``&#65;`` in what a page shows, ``%41`` in an address: whoever reads the
answer has the character. Each is short, so an unfinished text waits for the end of one and for no more. Longer
encodings (base64, hexadecimal) have no such bound; see `fulmen_safety.normalise.payloads`. What prints nothing stays as
it is: a stream must keep a number of characters of every view, and would keep all of a text full of those.
"""

from __future__ import annotations

import html
import re

from fulmen_safety.normalise.folded import folded_characters
from fulmen_safety.normalise.view import Edit, View, edited

_HEX, _CONTINUED = "[0-9A-Fa-f]", "%[89ABab][0-9A-Fa-f]"
_NAMES = ("nbsp", "commat", "period", "lowbar", "hyphen")
_NAMES_BEGUN = sorted({name[:end] for name in _NAMES for end in range(1, len(name) + 1)})
_ESCAPE = re.compile(
    rf"\\{{1,4}}(?:u{_HEX}{{4}}|x{_HEX}{{2}}|/)"
    rf"|&(?:#[0-9]{{2,7}}|#[xX]{_HEX}{{2,6}}|{'|'.join(_NAMES)});"
    rf"|%(?:[0-7]{_HEX}|[CDcd]{_HEX}{_CONTINUED}|[Ee]{_HEX}(?:{_CONTINUED}){{2}}|[Ff][0-7](?:{_CONTINUED}){{3}})"
)
_BEGUN = re.compile(
    rf"(?:\\{{1,4}}(?:u{_HEX}{{0,3}}|x{_HEX}?)?"
    rf"|&(?:#[0-9]{{0,7}}|#[xX]{_HEX}{{0,6}}|{'|'.join(_NAMES_BEGUN)})?"
    rf"|%(?:[0-7]|[C-Fc-f](?:{_HEX}(?:{_CONTINUED}){{0,2}}(?:%[89ABab]?)?)?)?)\Z"
)
_FIRST = re.compile(r"[\\&%]")
_LONGEST = 12  # characters of an escape


def unescaped(base: View, *, final: bool = True) -> View | None:
    """Return the view of `base` with its escapes undone, or None if it has none and none is open at its end."""
    text = base.text
    if not _FIRST.search(text):
        return None
    edits = [
        Edit(match.start(), match.end(), plain)
        for match in _ESCAPE.finditer(text)
        if (plain := folded_characters(_character(match[0])))
    ]
    stop = None
    if not final:
        last = edits[-1].end if edits else 0
        begun = _BEGUN.search(text, max(last, len(text) - _LONGEST))
        stop = begun.start() if begun else None
    if not edits and stop is None:
        return None
    return edited(base, "unescaped", edits, stop=stop)


def escapes(text: str, since: int) -> bool:
    """Return whether the unescaped view of an unfinished folded text shows something else, or waits, behind `since`.

    Args:
        since: an index before which it does not.
    """
    start = max(0, since - _LONGEST)
    if not _FIRST.search(text, start):
        return False
    return bool(_ESCAPE.search(text, start) or _BEGUN.search(text, max(start, len(text) - _LONGEST)))


def _character(escape: str) -> str:
    """Return the character that an escape stands for; nothing if there is none."""
    if escape[0] == "%":
        return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "ignore")
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[-1] == "/":
        return "/"
    code = int(escape.lstrip("\\")[1:], 16)
    return "" if 0xD800 <= code <= 0xDFFF else chr(code)
