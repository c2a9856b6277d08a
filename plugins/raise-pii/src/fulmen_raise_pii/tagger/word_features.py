"""What the tagger knows of a word by itself, as hashes: its letters, its form, and the name lists that it is on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

#: Name lists that a word may be on, each a bit of its entry in the gazetteer.
LISTS = ("given", "surname", "city", "country", "nationality", "job", "company", "street", "month", "day", "common")

Gazetteer = Mapping[int, int]  # word key -> bits of `LISTS`


def word_key(word: str) -> int:
    """Return the key of a word in the gazetteer, the same for all its cases: 32 bits."""
    return _hash(word.lower())


def _hash(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))  # halves of surrogates are text too


def shape(word: str) -> str:
    """Return the form of a word: ``Xx``, ``X``, ``XX``, ``x``, the number of digits, or the character itself."""
    if word.isdigit():
        if len(word) == 4 and word[:2] in ("19", "20"):
            return "#year"
        return f"#{len(word)}{'0' if word[0] == '0' else ''}"
    if not word[0].isalpha():
        return word
    if word.islower():
        return "x"
    if word.isupper():
        return "X" if len(word) == 1 else "XX"
    return "Xx" if word[0].isupper() and word[1:].islower() else "xX"


@dataclass(frozen=True, slots=True)
class Word:
    """Features of a word, as hashes, by how far from it they speak; and two names by which pairs of words are told
    apart."""

    far: tuple[int, ...]  # up to `emissions.REACH` words away
    near: tuple[int, ...]  # up to one word away
    own: tuple[int, ...]  # at the word itself
    names: tuple[int, int]  # itself, and its class


def describe(word: str, gazetteer: Gazetteer, *, known: bool = True) -> Word:
    """Return what is known of a word.

    Args:
        known: whether the word itself and the lists may be used. Training hides some words, so that the tagger learns
            to go by form and context too.
    """
    lower, form = word.lower(), shape(word)
    name = (lower if not word.isdigit() else form) if known else "?"
    bits = gazetteer.get(word_key(word), 0) if known else 0
    kind = f"{form}|{bits}"
    far, near, own = [f"s{form}", f"w{name}", f"b{bits}"], [f"k{kind}"], [f"n{min(len(word), 12)}"]
    near += [f"g{place}" for place in range(len(LISTS)) if bits >> place & 1]
    if word[0].isalpha():
        near.append(f">{lower[-3:]}")
        own += [f"<{lower[:2]}", f"<{lower[:3]}", f">{lower[-1:]}", f">{lower[-2:]}", f">{lower[-4:]}"]
        if not word.isascii():
            own.append("u" + ("g" if "\u0370" <= lower[0] <= "\u04ff" else "l"))

    def hashed(features: list[str]) -> tuple[int, ...]:
        return tuple(map(_hash, features))

    return Word(hashed(far), hashed(near), hashed(own), (_hash(name), _hash(kind)))
