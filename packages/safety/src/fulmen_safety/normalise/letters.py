"""Views of disguised Latin words: leetspeak, rot13, words backwards. Each is shown where known words come out of it."""

from __future__ import annotations

import codecs
import re
from functools import cache, lru_cache

from fulmen_safety import disguise_tables as tables
from fulmen_safety.normalise.view import Edit, View, edited

# -- leetspeak ---------------------------------------------------------------------------------------------------------

_LEET = str.maketrans("013457@$!|", "oieastasil")
_SIGNS = "013457@$!|"
#: Where a letter and a sign for a letter meet within a word. A word may end in an exclamation mark.
_LEET_SIGN = re.compile(f"[{_SIGNS}](?:(?<=[A-Za-z][013457])|(?=[{_SIGNS}]{{0,3}}[A-Za-z])(?<![.,;:][!@])(?<![0-9].))")
_LEET_WORD = re.compile(f"[A-Za-z{_SIGNS}]*[A-Za-z013457@$|]")


def leet(base: View) -> View | None:
    """Return the view in which digits and signs within words are letters, or None if no word comes out of it."""
    if not _LEET_SIGN.search(base.text):
        return None
    edits: list[Edit] = []
    convinced = False
    for match in _LEET_WORD.finditer(base.text):
        word = match[0]
        if word.isalpha() or not any(char.isalpha() for char in word):
            continue
        plain, known = _unleeted(word)
        convinced = convinced or known
        edits += [
            Edit(match.start() + place, match.start() + place + 1, new)
            for place, (old, new) in enumerate(zip(word, plain, strict=True))
            if old != new
        ]
    return edited(base, "leet", edits) if convinced else None


def _unleeted(word: str) -> tuple[str, bool]:
    """Return the word in letters, and whether it is a known one. A 1 is an i or an l: whichever gives a known word."""
    first = word.translate(_LEET)
    forms = [first]
    if "1" in word:
        forms += [word.replace("1", "l").translate(_LEET), word.replace("11", "ll").translate(_LEET)]
    for form in forms:
        if len(form) >= 3 and form.lower() in tables.english_words():
            return form, True
    return first, False


# -- rot13 and reversed words ------------------------------------------------------------------------------------------

#: Known words that must come out: names and rare words may be known ones backwards by accident.
_HITS = 2
_SHORTEST = 4  # letters of a word that counts
_WORD = re.compile("[A-Za-z]+")
_AROUND = ".,;:!?\"'()，。！？；："


@cache
def _rot13_words() -> frozenset[str]:
    words = tables.english_words()
    return frozenset(codecs.encode(word, "rot13") for word in words if len(word) >= _SHORTEST) - words


@cache
def _backward_words() -> frozenset[str]:
    words = tables.english_words()
    return frozenset(word[::-1] for word in words if len(word) >= _SHORTEST) - words


def rotated(base: View) -> View | None:
    """Return the view with every letter moved by 13, or None if no words come out of it."""
    if not _says(base.text, _rot13_words()):
        return None
    return View("rot13", codecs.encode(base.text, "rot13"), base.origin, base.end, base.decided)


def reversed_words(base: View) -> View | None:
    """Return the view in which the stretch with words backwards is read backwards, or None if there are none.

    Whether each word was turned or the whole stretch is left open: both readings stand there.
    """
    text = base.text
    if not _says(text, _backward_words()):
        return None
    places = [match.span() for match in _WORD.finditer(text) if match[0].lower() in _backward_words()]
    if len(places) < _HITS:
        return None
    start, end = places[0][0], places[-1][1]
    while start > 0 and text[start - 1] not in ":\n":  # lesser words around them are part of it
        start -= 1
    end = (text.find("\n", end) + 1 or len(text) + 1) - 1
    stretch = text[start:end]
    by_word = re.sub(r"\S+", lambda match: match[0][::-1], stretch)
    return edited(base, "reversed", [Edit(start, end, f"{by_word}\n{stretch[::-1]}")])


def _says(text: str, words: frozenset[str]) -> bool:
    """Whether enough of the text's words are among `words`."""
    tokens = words_of(text)
    return len(tokens & words) >= min(_HITS, len(tokens)) > 0


@lru_cache(16)
def words_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, those that are known English ones left out."""
    unknown = set(text.lower().split()) - tables.english_words()
    return frozenset(word.strip(_AROUND) for word in unknown) - tables.english_words()
