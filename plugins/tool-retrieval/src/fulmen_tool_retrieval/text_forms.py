"""What both readings of a text share: which characters are written without spaces, and the form that is compared."""

from __future__ import annotations

import unicodedata

#: Han, kana and hangul, as the inside of a character class: scripts in which words are not found by their spaces.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"


def folded(text: str) -> str:
    """The text in the form that is compared: compatibility forms made one (NFKC), lower case."""
    return unicodedata.normalize("NFKC", text).lower()
