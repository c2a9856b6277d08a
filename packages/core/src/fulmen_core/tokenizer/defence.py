"""Keeps the text of messages from becoming markup: every special token that a message spells is cut in two.

A template is rendered with a cut mark, a character that occurs nowhere in the conversation, behind the first character
of each special token in a message. What the template does with a message (trim it, join it) carries the marks along;
the rendered text is then taken apart at the marks, and no part holds a special token but those that the template wrote.
A conversation that spells none is rendered and encoded exactly as Hugging Face's tools do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_MARKS = range(0xE000, 0xF8FF)  # private use


class SpecialTokenCutter:
    """Cuts the special tokens of one tokenizer.

    Args:
        special: their texts, each of two characters or more.
    """

    def __init__(self, special: Collection[str]) -> None:
        longest_first = sorted(special, key=len, reverse=True)
        joined = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._written = re.compile(joined)
        # A lookahead takes nothing, so that a token which begins inside another is found too.
        self._begun = re.compile(f"(?={joined})")
        beginnings = sorted(
            {text[:length] for text in special for length in range(2, len(text))}, key=len, reverse=True
        )
        # The end of a message could be completed by what follows it.
        self._open_end = re.compile(f"(?=(?:{'|'.join(map(re.escape, beginnings)) or '(?!)'})\\s*\\Z)")

    @staticmethod
    def mark_for(texts: Iterable[str]) -> str:
        """A character that occurs in none of the texts.

        Raises:
            ValueError: every private-use character of the basic plane occurs.
        """
        used = set().union(*texts)
        for code in _MARKS:
            if chr(code) not in used:
                return chr(code)
        raise ValueError("the conversation uses every private-use character")

    def cut(self, text: str, mark: str) -> str:
        """`text` with `mark` behind the first character of every special token and of an unfinished one at the end."""
        places = sorted(
            {match.start() + 1 for pattern in (self._begun, self._open_end) for match in pattern.finditer(text)}
        )
        return mark.join(text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True))

    def count(self, text: str) -> int:
        """How many special tokens are written in `text`."""
        return sum(1 for _ in self._written.finditer(text))
