"""Views of a text in which disguises are undone, each with its offsets into the text as it was written.

* **raw**: as written.
* **folded**: full-width and other compatibility forms, homoglyphs, accents put on Latin letters, zero-width,
  bidirectional and control characters undone. Each character is folded alone, so the view of a longer text only adds
  to that of a shorter one.
* **joined**: the folded view without the separators of spaced-out words: ``i g n o r e``, ``1-3-8-0``. A separator
  goes if a lone letter, digit, dot or at sign stands on each side of it; two characters around it decide, and at the
  end of an unfinished text the view stops where that is still open.

A detector judges every view that differs from the ones before. New views (decoded payloads, pinyin) are functions
added to `views`; a streamed answer needs of each only that what it shows is never taken back.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

#: Characters around a place that may decide how it looks in a view.
REACH = 4


@dataclass(frozen=True, slots=True)
class View:
    """A text, and where each of its characters comes from.

    Args:
        name: "raw", "folded" or "joined".
        text: what detectors see.
        origin: index in `text` -> index of the raw character that it comes from; never falls.
        decided: how many raw characters the view speaks for; what lies beyond may still change how it looks.
    """

    name: str
    text: str
    origin: Callable[[int], int]
    decided: int

    def raw_index(self, index: int) -> int:
        """Return where the view's character `index` starts in the raw text; at the view's end, what it speaks for."""
        return self.origin(index) if index < len(self.text) else self.decided

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the raw span of the view's span, which must not be empty."""
        return self.origin(start), self.origin(end - 1) + 1

    def raw_index_before(self, raw_index: int, count: int) -> int:
        """Return the raw index at which `count` of the view's characters lie before `raw_index`, or 0."""
        index = bisect_left(range(len(self.text)), raw_index, key=self.origin)
        return self.origin(index - count) if index >= count and self.text else 0


def views(raw: str, *, final: bool = True) -> list[View]:
    """Return the raw view and each other view that shows something else.

    Args:
        raw: a text, or with ``final=False`` the beginning of one.
    """
    raw_view = View("raw", raw, _identity, len(raw))
    folded = _folded(raw)
    shown = [raw_view] if folded is None else [raw_view, folded]
    joined = _joined(folded or raw_view, final=final)
    return shown if joined is None else [*shown, joined]


def visible(text: str) -> str:
    """Return `text` without the characters that the folded view leaves out."""
    return "".join(char for char in text if _FOLDS[ord(char)])


def _identity(index: int) -> int:
    return index


# -- folded ------------------------------------------------------------------------------------------------------------

#: Letters of other scripts and symbols that look like an ASCII character. NFKC leaves these alone.
_TWINS = (
    ("A", "АΑᴀ"), ("B", "ВΒʙ"), ("C", "СᴄϹ"), ("D", "ᴅ"), ("E", "ЕΕᴇ"), ("G", "ɢ"), ("H", "НΗʜ"), ("I", "ІΙɪ"),
    ("J", "Јᴊ"), ("K", "КΚᴋ"), ("L", "ʟ"), ("M", "МΜᴍ"), ("N", "Νɴ"), ("O", "ОΟᴏ"), ("P", "РΡᴘ"), ("R", "ʀ"),
    ("S", "Ѕ"), ("T", "ТΤᴛ"), ("U", "ᴜ"), ("V", "ᴠ"), ("W", "ᴡ"), ("X", "ХΧ"), ("Y", "УΥʏ"), ("Z", "Ζᴢ"),
    ("a", "аαɑ"), ("c", "сϲ"), ("d", "ԁ"), ("e", "е"), ("g", "ɡ"), ("h", "һ"), ("i", "іιı"), ("j", "ј"),
    ("k", "κ"), ("l", "ӏ"), ("o", "оο"), ("p", "рρ"), ("q", "ԛ"), ("s", "ѕ"), ("u", "υ"), ("v", "ν"),
    ("w", "ԝ"), ("x", "хχ"), ("y", "у"), ("/", "∕⁄⧸"), (":", "∶꞉։"), (".", "․"), ("'", "‘’ʼ′ˈ"), ('"', "“”″"),
)  # fmt: skip
_LOOKALIKES = {twin: char for char, twins in _TWINS for twin in twins}
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63"
_BLANKS = "\u115f\u1160\u3164\uffa0\u2800"  # letters and symbols that print nothing
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _FoldTable(dict[int, str]):
    """Code point -> what it folds to, worked out when first met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(chr(code))
        return folded


def _fold(char: str) -> str:
    if char in "\t\n\r":
        return char
    if char in _LOOKALIKES:
        return _LOOKALIKES[char]
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
    return "".join(_LOOKALIKES.get(part, part) for part in (bare if bare.isascii() else composed))


_FOLDS = _FoldTable()


def _folded(raw: str) -> View | None:
    """Return the folded view, or None if it is the raw one."""
    if raw.isascii() and not _CONTROL.search(raw):
        return None
    text = raw.translate(_FOLDS)
    if text == raw:
        return None
    uneven = "".join(re.escape(char) for char in set(raw) if len(_FOLDS[ord(char)]) != 1)
    if not uneven:
        return View("folded", text, _identity, len(raw))
    at_raw: list[int] = []
    at_text: list[int] = []
    ahead = 0  # how far the view is ahead of the raw text
    for match in re.finditer(f"[{uneven}]", raw):
        at_raw.append(match.start())
        at_text.append(match.start() + ahead)
        ahead += len(_FOLDS[ord(match[0])]) - 1

    def origin(index: int) -> int:
        before = bisect_right(at_text, index) - 1  # the last uneven character at or before `index`
        if before < 0:
            return index
        beyond = index - at_text[before] - len(_FOLDS[ord(raw[at_raw[before]])])
        return at_raw[before] if beyond < 0 else at_raw[before] + 1 + beyond

    return View("folded", text, origin, len(raw))


# -- joined ------------------------------------------------------------------------------------------------------------

_WORD = "0-9A-Za-z\u3400-\u9fff"
_LONE = _WORD + "@."  # what may stand alone between separators; the dot and the at sign belong to addresses
_SEPARATOR = r" .\-_*|/~·"
_LONE_BEFORE = f"[{_SEPARATOR}](?<=[{_LONE}][{_SEPARATOR}])(?<![{_WORD}][{_LONE}][{_SEPARATOR}])"
_JOINT = re.compile(f"{_LONE_BEFORE}(?=[{_LONE}](?![{_WORD}]))")
_OPEN = re.compile(f"{_LONE_BEFORE}[{_LONE}]?\\Z")


def _joined(view: View, *, final: bool) -> View | None:
    """Return the joined view of the folded one, or None if it shows nothing else and nothing is open."""
    text = view.text
    undecided = None if final else _OPEN.search(text, max(0, len(text) - 2))
    stop = undecided.start() if undecided else len(text)
    joints = [match.start() for match in _JOINT.finditer(text) if match.start() < stop]
    if not joints and not undecided:
        return None
    pieces, last = [], 0
    for joint in joints:
        pieces.append(text[last:joint])
        last = joint + 1
    pieces.append(text[last:stop])
    resumes = [joint - count for count, joint in enumerate(joints)]  # index in the view of what follows each joint

    def origin(index: int) -> int:
        return view.origin(index + bisect_right(resumes, index))

    return View("joined", "".join(pieces), origin, view.raw_index(stop) if undecided else view.decided)
