"""What a learned detector sees of a text: hashes of its character n-grams, words and pairs of words, with places.

Vectorised over the text's code points. Letters are lowered and digits made equal within ASCII alone, so that a
character looks the same whatever follows it; disguises are undone before, by the panel's views. One pass serves every
detector that is asked about the same text.

Chinese is seen through characters, pairs and triples; languages with blanks through words and pairs as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Lengths of the character n-grams.
CHARACTER_NGRAMS = (1, 2, 3, 4, 5)

#: A longer run of letters is no word, and words further apart no pair: a feature spans a bounded stretch.
LONGEST_WORD = 32
WIDEST_GAP = 4

#: Characters before a feature's end that may decide it: two words, the one skipped, the gaps, the border before.
REACH = 3 * LONGEST_WORD + 2 * WIDEST_GAP + 1

#: What is known of a text is kept for the next detector if it has no more characters than this.
KEPT = 4096

IDEOGRAPHS = 0x2E80  # from here on, each character is a word of its own
PRIME = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
MIX = np.uint64(0xD6E8FEB86659FD93)
WORD_SALT, PAIR_SALT, SKIP_SALT = (np.uint64(salt) for salt in (0xA1, 0xB2, 0xC3))

Hashes = NDArray[np.uint32]
Places = NDArray[np.intp]


def _folds() -> NDArray[np.uint64]:
    table = np.arange(128, dtype=np.uint64)
    for code in range(128):
        char = chr(code)
        table[code] = ord("0") if char.isdigit() else ord(char.lower()) if char.isalpha() else code
        if char.isspace():
            table[code] = ord(" ")
    return table


def _letters() -> NDArray[np.bool_]:
    return np.array([chr(code).isalnum() or chr(code) == "'" for code in range(128)])


FOLD, LETTER = _folds(), _letters()


@dataclass(frozen=True, slots=True)
class Features:
    """The features of one text.

    Args:
        length: characters of the text.
        ngrams: for each of `CHARACTER_NGRAMS` n, uint32 hashes; the one at index i ends before character i + n.
        words: words, pairs and pairs with one word skipped: uint32 hashes, and the index after each one's last
            character (no two of a kind end at the same place).
        starts, ends: of the words, intp.
    """

    length: int
    ngrams: tuple[Hashes, ...]
    words: tuple[tuple[Hashes, Places], ...]
    starts: Places
    ends: Places

    def hashes(self) -> Hashes:
        """Return all hashes, uint32 of any length."""
        return np.concatenate([*self.ngrams, *(hashes for hashes, _ in self.words)])

    def counts(self) -> NDArray[np.int32]:
        """Return how many features end at or before each index, int32 of length + 1."""
        ended = np.zeros(self.length + 1, np.int32)
        for size in CHARACTER_NGRAMS:
            ended[size:] += 1
        for _, ends in self.words:
            ended[ends] += 1
        return np.cumsum(ended, dtype=np.int32)


def features(text: str) -> Features:
    """Return the features of `text`; the last few texts' are kept, since several detectors ask for the same ones."""
    return _kept(text) if len(text) <= KEPT else _features(text)


def _features(text: str) -> Features:
    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    ascii_N = np.minimum(codes_N, 127).astype(np.intp)
    plain_N = codes_N < 128
    codes_N = np.where(plain_N, FOLD[ascii_N], codes_N)
    ngrams = []
    rolling = np.zeros(len(text) + 1, np.uint64)
    for size in CHARACTER_NGRAMS:
        if size > len(text):
            ngrams.append(np.zeros(0, np.uint32))
            continue
        rolling = rolling[:-1] * PRIME + codes_N[size - 1 :]
        ngrams.append(_mixed(rolling + np.uint64(size)))
    starts, ends = _runs(_is_letter(codes_N))
    return Features(len(text), tuple(ngrams), _word_features(codes_N, starts, ends), starts, ends)


_kept = lru_cache(maxsize=4)(_features)


def is_open(char: str) -> bool:
    """Return whether `char` at the end of a text may be part of a word that goes on."""
    return bool(_is_letter(np.array([ord(char)], np.uint64))[0])


def units(text: str) -> tuple[Places, Places]:
    """Return where the words of `text` start and end, each ideograph being one; in order."""
    seen = features(text)
    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lone = np.flatnonzero(codes_N >= IDEOGRAPHS)
    starts, ends = np.concatenate([seen.starts, lone]), np.concatenate([seen.ends, lone + 1])
    order = np.argsort(starts)
    return starts[order], ends[order]


def _is_letter(codes_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
    letters = LETTER[np.minimum(codes_N, 127).astype(np.intp)]
    signs = (codes_N < 0xC0) | ((codes_N >= 0x2000) & (codes_N < 0x2070))
    return np.where(codes_N < 128, letters, ~signs & (codes_N < IDEOGRAPHS))


def _runs(letters_N: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Return where the runs of letters start and end, those that are too long left out."""
    edges = np.flatnonzero(np.diff(letters_N, prepend=False, append=False))
    starts, ends = edges[0::2], edges[1::2]
    short = ends - starts <= LONGEST_WORD
    return starts[short], ends[short]


def _word_features(codes_N: NDArray[np.uint64], starts: Places, ends: Places) -> tuple[tuple[Hashes, Places], ...]:
    if not len(starts):
        return ()
    # sum of code[j] * inverse**j; a word's part of it times prime**end does not depend on where the word stands
    powers, inverses = _powers(len(codes_N) + 1)
    sums = np.zeros(len(codes_N) + 1, np.uint64)
    np.cumsum(codes_N * inverses[:-1], out=sums[1:])
    words = (sums[ends] - sums[starts]) * powers[ends]
    words = (words ^ (words >> np.uint64(31))) * MIX
    kinds = [(_mixed(words + WORD_SALT), ends)]
    for skipped, salt in ((1, PAIR_SALT), (2, SKIP_SALT)):
        if len(words) <= skipped:
            continue
        near = starts[1:] - ends[:-1] <= WIDEST_GAP
        near = near if skipped == 1 else near[1:] & near[:-1]
        pairs = words[:-skipped][near] * PRIME + words[skipped:][near]
        kinds.append((_mixed(pairs + salt), ends[skipped:][near]))
    return tuple(kinds)


def _mixed(hashes: NDArray[np.uint64]) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(32))) * MIX
    hashes = (hashes ^ (hashes >> np.uint64(29))) * PRIME
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    if count <= _POWERS:
        powers, inverses = _kept_powers()
        return powers[:count], inverses[:count]
    return _power_tables(count)


_POWERS = 1 << 14


@lru_cache(maxsize=1)
def _kept_powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return _power_tables(_POWERS)


def _power_tables(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return prime**i and inverse**i modulo 2**64 for i below `count`."""
    tables = []
    for base in (PRIME, _INVERSE):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        tables.append(np.cumprod(factors, dtype=np.uint64))
    return tables[0], tables[1]
