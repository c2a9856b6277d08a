"""The decoded view: encoded stretches of text replaced by what they say, layer by layer.

Bounded: at most `MOST_LAYERS` layers, and of each text at most `MOST_CHARACTERS` encoded characters a layer; a large
attachment is no prompt. Each layer is one pass over the text.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Iterator

from fulmen_safety.normalise.folded import fold
from fulmen_safety.normalise.joined import join
from fulmen_safety.normalise.view import Edit, View, edited

MOST_LAYERS = 3
MOST_CHARACTERS = 65_536

_PERCENT = re.compile("(?:%[0-9A-Fa-f]{2})+")
_REFERENCE = re.compile("(?:&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|lt|gt|amp|quot|apos|nbsp);)+")
_ESCAPE = re.compile(r"(?:\\u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\U[0-9A-Fa-f]{8}|\\x[0-9A-Fa-f]{2})+")
_HEX = re.compile("(?<![0-9A-Za-z])(?:0x)?[0-9A-Fa-f]{2}(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5,}")
_BINARY = re.compile("(?<![0-9])[01]{8}(?:[ ,]?[01]{8}){2,}")
_BASE64 = re.compile(
    "(?<![0-9A-Za-z+/_-])(?:[0-9A-Za-z+/_-]{32,}+\r?\n(?=[0-9A-Za-z+/_-]{4}))*[0-9A-Za-z+/_-]{8,}={0,2}"
)
#: Letters of encoded text change between cases and digits as words seldom do. What has none of it is no base64.
_MIXED = re.compile("[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z][0-9]+[A-Za-z]")
_WHOLE = 24  # encoded characters that are whole groups in base64, whole bytes in every other encoding
_SHORT = 24  # encoded characters; of fewer, only letters and blanks are believed
#: Cheap searches, beginning with what is rare in words, that find something wherever the expression above them might.
_HEX_SIGN = re.compile("[0-9](?:[0-9A-Fa-f]{8}|[0-9A-Fa-f][ :,]{1,2}(?:0x)?[0-9A-Fa-f]{2}[ :,])")
_BASE64_SIGN = re.compile("[A-Z0-9](?:(?<=[a-z0-9][A-Z])|(?<=[A-Z][A-Z])(?=[a-z])|(?<=[A-Za-z][0-9]))")
_BINARY_SIGN = re.compile("[01]{8}")


def decoded_view(base: View) -> View | None:
    """Return the view of `base` with all its layers of encoding undone, or None if there are none."""
    view = base
    for _ in range(MOST_LAYERS):
        edits = list(_edits(view.text))
        if not edits:
            break
        view = _plain(edited(view, "decoded", edits))
    return None if view is base else view


def _plain(view: View) -> View:
    """Fold and join what was decoded: one disguise may hide another."""
    folded = fold(view.text)
    if folded is not None:
        view = View("decoded", folded.text, _after(folded, view), _until(folded, view), view.decided)
    for joined in join(view)[:1]:
        view = View("decoded", joined.text, joined.origin, joined.end, joined.decided)
    return view


def _after(upper: View, lower: View) -> Callable[[int], int]:
    return lambda index: lower.origin(upper.origin(index))


def _until(upper: View, lower: View) -> Callable[[int], int]:
    return lambda index: lower.end(upper.end(index) - 1)


def _edits(text: str) -> Iterator[Edit]:
    """Yield what one layer hides, of the first kind that hides anything."""
    for sign, expression, decode in _KINDS:
        if not (sign in text if isinstance(sign, str) else sign.search(text)):
            continue
        left = MOST_CHARACTERS
        found = []
        for match in expression.finditer(text):
            encoded = match[0][: left // _WHOLE * _WHOLE]
            left -= len(encoded)
            if hidden := decode(encoded):
                found.append(Edit(match.start(), match.start() + len(encoded), hidden))
            if left < _WHOLE:
                break
        if found:
            yield from found
            return


def _from_percent(found: str) -> str:
    return _text(bytes.fromhex(found.replace("%", "")))


def _from_references(found: str) -> str:
    return html.unescape(found)


def _from_escapes(found: str) -> str:
    codes = re.findall(r"\\(?:u\{([0-9A-Fa-f]+)\}|[uUx]([0-9A-Fa-f]+))", found)
    units = [int(braced or plain, 16) for braced, plain in codes]
    if any(unit > 0x10FFFF for unit in units):
        return ""
    if "\\x" in found and all(unit < 256 for unit in units):
        return _text(bytes(units))
    return "".join(map(chr, units)).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _from_hex(found: str) -> str:
    digits = re.sub("0x|[ :,]", "", found)
    return _text(bytes.fromhex(digits))


def _from_binary(found: str) -> str:
    bits = re.sub("[ ,]", "", found)
    return _text(bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)))


def _from_base64(found: str) -> str:
    if not _MIXED.search(found):
        return ""
    letters = re.sub(r"[\r\n]", "", found).rstrip("=").replace("-", "+").replace("_", "/")
    whole = len(letters) // 4 * 4
    rest = letters[whole:]  # of the last group; a single character carries nothing
    padded = letters[:whole] + (rest + "=" * (4 - len(rest)) if len(rest) > 1 else "")
    try:
        hidden = _text(base64.b64decode(padded, validate=True))
    except binascii.Error:
        return ""
    if len(letters) < _SHORT and not all(char.isalpha() or char in " ,.!?'" for char in hidden):
        return ""
    return hidden


def _text(data: bytes) -> str:
    """Return the text that `data` is in UTF-8, or nothing: what cannot be read is no message."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() or all(char.isprintable() or char in "\n\r\t" for char in text) else ""


_KINDS: tuple[tuple[str | re.Pattern[str], re.Pattern[str], Callable[[str], str]], ...] = (
    ("%", _PERCENT, _from_percent),
    ("&", _REFERENCE, _from_references),
    ("\\", _ESCAPE, _from_escapes),
    (_BINARY_SIGN, _BINARY, _from_binary),
    (_HEX_SIGN, _HEX, _from_hex),
    (_BASE64_SIGN, _BASE64, _from_base64),
)
