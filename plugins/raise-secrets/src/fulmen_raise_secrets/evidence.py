"""What speaks for a string being a secret: its check digits, its randomness; and what speaks against it."""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from itertools import pairwise
from zlib import crc32

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def github_check(token: str) -> bool:
    """Whether the last six characters are the CRC-32 of the thirty before them, in base 62 (GitHub's tokens since
    2021)."""
    body, check = token.rpartition("_")[2][:-6], token[-6:]
    number, digits = crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits == check


def jwt_header(token: str) -> bool:
    """Whether the first part of a JSON Web Token is a header: JSON with an algorithm (RFC 7519)."""
    head = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
    return isinstance(header, dict) and ("alg" in header or "typ" in header)


def entropy(text: str) -> float:
    """Return the bits per character of `text` under its own distribution of characters."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts) if text else 0.0


def looks_random(text: str) -> bool:
    """Whether `text` looks drawn and not written: several classes of characters, few repeats, no words in it."""
    if len(text) < 12 or entropy(text) < 3.0:
        return False
    classes = sum(bool(re.search(kind, text)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    if classes < 2 or ("." in text and not re.search("[0-9]", text)):  # module.Class.method
        return False
    longest_word = max((len(run) for run in re.findall("[a-z]+|[A-Z]+", text)), default=0)
    if longest_word > 7:
        return False
    changes = sum(_class(a) != _class(b) for a, b in pairwise(text))
    return changes * 4 >= len(text)


#: What stands in examples where a secret would stand.
_PLACEHOLDER = re.compile(
    r"example|placeholder|change_?me|dummy|sample|redacted|your[_-]|my[_-]?(?:secret|password|token|key)|"
    r"<[^>]*>|\$\{|\{\{|%\(|xxxx|\*\*\*|\.\.\.|0000000|1234567890|abcdefgh",
    re.IGNORECASE,
)


def is_placeholder(text: str) -> bool:
    """Whether `text` only says where a secret would stand."""
    return bool(_PLACEHOLDER.search(text)) or len(set(text)) <= 3


def _class(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.islower() else 2 if char.isupper() else 3
