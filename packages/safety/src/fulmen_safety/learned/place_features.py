"""The features that end at one place of a text: the same hashes as `features` gives of a whole text, one at a time.

For streams, which grow by a few characters: there numpy takes longer to be asked than to compute.
"""

from __future__ import annotations

from fulmen_safety.learned import features as whole

_MASK = (1 << 64) - 1
_PRIME, _MIX = int(whole.PRIME), int(whole.MIX)
_WORD_SALT = int(whole.WORD_SALT)
#: Of a word and the one before it, and of a word and the one before that.
PAIR_SALT, SKIP_SALT = int(whole.PAIR_SALT), int(whole.SKIP_SALT)

_FOLDED = {code: int(fold) for code, fold in enumerate(whole.FOLD)}
ASCII_LETTERS = frozenset(chr(code) for code in range(128) if whole.LETTER[code])


def folded(text: str) -> str:
    """Return the text as features see it, of the same length."""
    return text.translate(_FOLDED)


def is_letter(char: str) -> bool:
    """Return whether the character may be part of a word."""
    if char < "\x80":
        return char in ASCII_LETTERS
    return "\xc0" <= char < chr(whole.IDEOGRAPHS) and not "\u2000" <= char < "\u2070"


def is_lone(char: str) -> bool:
    """Return whether the character is a word of its own."""
    return ord(char) >= whole.IDEOGRAPHS


def ngram_hashes(characters: str) -> list[int]:
    """Return the hashes of the n-grams that end with these folded characters: no more than the longest has."""
    hashes = []
    rolling, power = 0, 1
    for size, char in enumerate(reversed(characters), 1):
        rolling = (rolling + ord(char) * power) & _MASK
        power = power * _PRIME & _MASK
        hashes.append(_mixed(rolling + size))
    return hashes


def word_hash(letters: str) -> tuple[int, int]:
    """Return what pairs with a folded word are hashed from, and the word's own hash."""
    inner = 0
    for char in letters:
        inner = (inner + ord(char)) * _PRIME & _MASK
    inner = (inner ^ (inner >> 31)) * _MIX & _MASK
    return inner, _mixed(inner + _WORD_SALT)


def pair_hash(first: int, second: int, salt: int) -> int:
    """Return the hash of two words, given what `word_hash` says that pairs are hashed from."""
    return _mixed(first * _PRIME + second + salt)


def _mixed(value: int) -> int:
    value &= _MASK
    value = (value ^ (value >> 32)) * _MIX & _MASK
    value = (value ^ (value >> 29)) * _PRIME & _MASK
    return value >> 32
