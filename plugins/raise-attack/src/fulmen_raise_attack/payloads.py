"""Text smuggled in an encoding: base64 and hexadecimal stretches that decode to readable text. Bounded in number and
size.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: At most this many stretches are decoded, and of each this many characters; a large attachment is no prompt.
MOST_PAYLOADS = 16
MOST_CHARACTERS = 8192

_BASE64 = re.compile(r"(?<![0-9A-Za-z+/_-])[0-9A-Za-z+/_-]{24,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}[ :]?){16,}")


@dataclass(frozen=True, slots=True)
class Payload:
    """What a stretch of text decodes to."""

    encoding: str
    text: str
    start: int
    end: int


def payloads(text: str) -> Iterator[Payload]:
    """Yield what is hidden in `text`."""
    left = MOST_PAYLOADS
    for encoding, expression, decode in (("hex", _HEX, _from_hex), ("base64", _BASE64, _from_base64)):
        for match in expression.finditer(text):
            if left == 0:
                return
            hidden = decode(match[0][:MOST_CHARACTERS])
            if hidden:
                left -= 1
                yield Payload(encoding, hidden, match.start(), match.end())


def _from_hex(found: str) -> str:
    digits = re.sub("[ :]", "", found)
    return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_base64(found: str) -> str:
    found = found.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(found[: len(found) // 4 * 4] + _tail(found), validate=True))
    except binascii.Error:
        return ""


def _tail(found: str) -> str:
    """The last, incomplete group of four with its padding; a single left-over character carries nothing."""
    rest = found[len(found) // 4 * 4 :]
    return rest + "=" * (4 - len(rest)) if len(rest) > 1 else ""


def _readable(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if all(char.isprintable() or char in "\n\r\t" for char in text) else ""
