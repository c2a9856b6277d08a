"""The folded view: each character brought to its plain form, so the view of a longer text only adds to that of a
shorter one. A character is folded alone, but for the signs of Chinese text beside a number: there one more decides."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from fulmen_safety import disguise_tables as tables
from fulmen_safety.normalise.view import Edit, View, mapped, raw_view

#: Signs and small capitals that look like an ASCII character; letters are in the table of homoglyphs.
_TWINS = (
    ("A", "ᴀ"), ("B", "ʙ"), ("C", "ᴄ"), ("D", "ᴅ"), ("E", "ᴇ"), ("G", "ɢ"), ("H", "ʜ"), ("J", "ᴊ"), ("K", "ᴋ"),
    ("L", "ʟ"), ("M", "ᴍ"), ("N", "ɴ"), ("O", "ᴏ"), ("P", "ᴘ"), ("R", "ʀ"), ("T", "ᴛ"), ("U", "ᴜ"), ("V", "ᴠ"),
    ("W", "ᴡ"), ("Y", "ʏ"), ("Z", "ᴢ"), ("/", "∕⁄⧸"), (":", "∶꞉։"), (".", "․"), ("'", "‘’ʼ′ˈ"), ('"', "″"),
)  # fmt: skip
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63"
_BLANKS = "\u115f\u1160\u3164\uffa0\u2800"  # letters and symbols that print nothing

#: Signs of ordinary Chinese and English text, which stay as they are: a second view of every Chinese text for the sake
#: of its commas would double the cost of all detectors and show them nothing.
_ORDINARY_SIGNS = "，。、；：！？（）《》〈〉「」『』【】〔〕“”…·￥〇"
#: Of these, what belongs to a telephone number or an address, beside letters and digits: （0755）, fe80：：1.
_IN_NUMBER = re.compile("（(?=[0-9A-Za-z+])|(?<=[0-9A-Za-z])）|(?<=[0-9A-Za-z：])：")
_NARROW = {"（": "(", "）": ")", "：": ":"}

#: Kinds of characters that are replaced one after another; with more each place is looked up.
_FEW = 12

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _FoldTable(dict[int, str]):
    """Code point -> what it folds to, worked out when first met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(chr(code))
        return folded


_FOLDS = _FoldTable()


def fold(raw: str, *, final: bool = True) -> View | None:
    """Return the folded view of a raw text, or None if it is the raw one and nothing is open.

    Args:
        raw: a text, or with ``final=False`` the beginning of one: a bracket at its end waits for what comes.
    """
    unusual = _CONTROL if raw.isascii() else _unusual()
    if not unusual.search(raw) and (final or not raw.endswith("（")):
        return None
    text, stop = folded_characters(raw), len(raw)
    if not final and text.endswith("（"):
        text, stop = text[:-1], raw.rindex("（")
    if any(sign in text for sign in _NARROW):
        text = _IN_NUMBER.sub(lambda match: _NARROW[match[0]], text)
    if text == raw:
        return None
    shown = raw[:stop]
    changing = "".join(re.escape(char) for char in set(shown) if len(_FOLDS[ord(char)]) != 1)
    uneven = (
        [Edit(match.start(), match.end(), _FOLDS[ord(match[0])]) for match in re.finditer(f"[{changing}]", shown)]
        if changing
        else []
    )
    return mapped(raw_view(raw), "folded", text, uneven, stop)


def folded_characters(text: str) -> str:
    """Return each character of `text` in its plain form, whatever stands beside it."""
    plain = {char: folded for char in set(text) if (folded := _FOLDS[ord(char)]) != char}
    if len(plain) > _FEW or any(char in plain for folded in plain.values() for char in folded):
        return text.translate(_FOLDS)
    for char, folded in plain.items():  # a few kinds, as apostrophes and accents: faster than looking each place up
        text = text.replace(char, folded)
    return text


def folds(raw: str, since: int) -> bool:
    """Return whether the folded view of an unfinished text shows something else, or waits, behind `since`.

    Args:
        since: an index before which it does not.
    """
    unusual = _CONTROL if raw.isascii() else _unusual()
    start = max(0, since - 1)  # a bracket there may have waited for what came
    if raw.endswith("（"):
        return True
    if not unusual.search(raw, start):
        return False
    piece = raw[start:]
    return piece.translate(_FOLDS) != piece or _IN_NUMBER.search(raw, start) is not None


def visible(text: str) -> str:
    """Return `text` without the characters that the folded view leaves out."""
    return "".join(char for char in text if _FOLDS[ord(char)])


@cache
def _unusual() -> re.Pattern[str]:
    """Return what finds the first character that might fold to something else."""
    usual, run = "\t\n\r -~" + re.escape(_ORDINARY_SIGNS), 0x4E00
    for code in [*sorted(code for char in tables.simplified() if 0x4E00 <= (code := ord(char)) <= 0x9FFF), 0xA000]:
        if code > run:
            usual += f"{chr(run)}-{chr(code - 1)}"
        run = code + 1
    return re.compile(f"[^{usual}]|{_IN_NUMBER.pattern}")


@cache
def _lookalikes() -> dict[str, str]:
    twins = {twin: char for char, alike in tables.homoglyphs().items() for twin in alike}
    return twins | {twin: char for char, alike in _TWINS for twin in alike}


def _fold(char: str) -> str:
    if char in "\t\n\r" or char in _ORDINARY_SIGNS:
        return char
    if char in _lookalikes():
        return _lookalikes()[char]
    if char in _DASHES:
        return "-"
    if char in _BLANKS:
        return " "
    if 0xE0020 <= ord(char) <= 0xE007E:
        return chr(ord(char) - 0xE0000)  # tag characters: invisible ASCII
    category = unicodedata.category(char)
    if category in ("Cc", "Cf", "Mn", "Me") or 0xFE00 <= ord(char) <= 0xFE0F:
        return ""
    if category in ("Zs", "Zl", "Zp"):
        return " "
    composed = unicodedata.normalize("NFKC", char)
    bare = "".join(part for part in unicodedata.normalize("NFKD", char) if unicodedata.category(part) != "Mn")
    return "".join(_plain(part) for part in (bare if bare.isascii() else composed))


def _plain(char: str) -> str:
    return _lookalikes().get(char) or tables.simplified().get(char, char)
