"""Keeps the text of messages from becoming markup: every special token that a message spells is cut in two.

A template is rendered with a cut mark, a character that occurs nowhere in the conversation, behind the first character
of each special token in a message. What the template does with a message (trim it, join it) carries the marks along;
the rendered text is then taken apart at the marks, and no part holds a special token but those that the template wrote.
A conversation that spells none is rendered and encoded exactly as Hugging Face's tools do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from fulmen_core.errors import UserError

_MARKS = range(0xE000, 0xF8FF)  # private use


def texts_of(value: Any) -> Iterator[str]:
    """Every string in `value`, lists and objects of strings and the like; names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)


class SpecialTokenCutter:
    """Cuts the special tokens of one tokenizer.

    Args:
        special: their texts, each of two characters or more.
    """

    def __init__(self, special: Collection[str]) -> None:
        joined = "|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)"
        first = "".join(map(re.escape, sorted({text[0] for text in special}))) or "\\0"
        self._written = re.compile(joined)
        # A lookahead takes nothing, so that a token which begins inside another is found too. The first characters are
        # asked first: there may be hundreds of tokens.
        self._begun = re.compile(f"(?=[{first}])(?={joined})")
        self._beginnings = frozenset(text[:length] for text in special for length in range(2, len(text)))
        self._longest = max(map(len, special), default=0)

    @staticmethod
    def mark_for(texts: Iterable[str]) -> str:
        """A character that occurs in none of the texts.

        Raises:
            UserError: every private-use character of the basic plane occurs.
        """
        used = set().union(*texts)
        for code in _MARKS:
            if chr(code) not in used:
                return chr(code)
        raise UserError("the conversation uses every private-use character", remedy="leave some of them out")

    def cut(self, text: str, mark: str) -> str:
        """`text` with `mark` behind the first character of every special token and of an unfinished one at the end."""
        places = {match.start() + 1 for match in self._begun.finditer(text)}
        # The end of a message could be completed by what the template puts behind it.
        said = text.rstrip()
        tails = range(2, min(self._longest, len(said) + 1))
        places |= {len(said) - length + 1 for length in tails if said[-length:] in self._beginnings}
        cuts = [0, *sorted(places), len(text)]
        return mark.join(text[begin:end] for begin, end in pairwise(cuts))

    def cut_all(self, value: Any, mark: str) -> Any:
        """`value`, lists and objects of strings and the like, with every string in it cut."""
        if isinstance(value, str):
            return self.cut(value, mark)
        if isinstance(value, Mapping):
            return {self.cut(key, mark): self.cut_all(inner, mark) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.cut_all(inner, mark) for inner in value]
        return value

    def count(self, text: str) -> int:
        """How many special tokens are written in `text`."""
        return sum(1 for _ in self._written.finditer(text))
