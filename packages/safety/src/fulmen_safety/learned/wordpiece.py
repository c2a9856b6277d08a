"""BERT's uncased WordPiece tokenizer (arXiv 1810.04805, 1609.08144), without a dependency.

Text is cleaned, lowered, freed of accents, cut at blanks and around each sign and each Chinese character, and each word
into the longest pieces that the vocabulary has, from its start on; one that cannot be cut is unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
#: Every vocabulary has these.
SPECIAL = (UNKNOWN, CLS, SEP)
#: How a piece begins that is no beginning of a word.
INNER = "##"

#: Words that are longer are unknown; of words that are met it is remembered how they are cut.
_LONGEST_WORD = 100
_REMEMBERED = 1 << 14

#: What the published tokenizer takes for a Chinese character, a gap in one block included.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf"
_ALONE = re.compile(f"([{_HAN}\U0002f800-\U0002fa1f])")
_PLAIN = re.compile(r"[\t\n\r -~]*")
_PLAIN_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")


class WordPiece:
    """A vocabulary, and the cutting of texts by it.

    Args:
        pieces: of which each has its index for an id; `SPECIAL` are among them.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece: place for place, piece in enumerate(pieces)}
        self._unknown, self._cls, self._sep = (self._ids[one] for one in SPECIAL)
        self._cut = lru_cache(_REMEMBERED)(self._cut_word)

    def ids(self, text: str, longest: int) -> list[int]:
        """Return the ids of a text's first pieces between `CLS` and `SEP`, `longest` in all at most."""
        found = [self._cls]
        for word in words_of(text):
            found += self._cut(word)
            if len(found) >= longest:
                break
        return [*found[: longest - 1], self._sep]

    def _cut_word(self, word: str) -> tuple[int, ...]:
        if len(word) > _LONGEST_WORD:
            return (self._unknown,)
        found, start = list[int](), 0
        while start < len(word):
            mark = INNER if start else ""
            for end in range(len(word), start, -1):
                piece = self._ids.get(mark + word[start:end])
                if piece is not None:
                    break
            else:
                return (self._unknown,)
            found.append(piece)
            start = end
        return tuple(found)


def words_of(text: str) -> list[str]:
    """Return the words, signs and Chinese characters of a text, lowered and without accents."""
    if _PLAIN.fullmatch(text):
        return _PLAIN_WORDS.findall(text.lower())
    shown = _ALONE.sub(r" \1 ", "".join(_cleaned(char) for char in text))
    return "".join(_apart(char) for char in unicodedata.normalize("NFD", shown)).split()


@lru_cache(_REMEMBERED)
def _cleaned(char: str) -> str:
    if char in "\t\n\r":
        return " "
    if char == "\ufffd" or unicodedata.category(char).startswith("C"):
        return ""
    return " " if char.isspace() else char


@lru_cache(_REMEMBERED)
def _apart(char: str) -> str:
    """Return a character in lower case, a sign with a blank on either side, an accent not at all."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    if category.startswith("P") or (char.isascii() and not char.isalnum() and char != " "):
        return f" {char} "
    return char.lower()
