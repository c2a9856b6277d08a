"""The terms of a text for full-text search: words where spaces part them, pairs of characters where none do.

SQLite's `unicode61` takes a whole Chinese sentence for one word, and `trigram` finds no word of two characters, which
most Chinese words are. So the text is cut before SQLite sees it: overlapping pairs of characters, the form in which
Lucene's CJKAnalyzer indexes, with words left to SQLite's own stemmer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fulmen_tool_retrieval.text_forms import UNSPACED, folded

#: SQLite's tokenizer for `terms_of`: Porter's stems of English words; everything else as it is, without accents.
TOKENIZER = "porter unicode61 remove_diacritics 2"

_RUNS = re.compile(f"([{UNSPACED}]+)|((?:(?![{UNSPACED}])[^\\W_])+)")
_QUERY_TERMS = 64


def terms_of(text: str) -> str:
    """The terms of a document, with a space between them."""
    return " ".join(_terms(text))


def match_expression(query: str) -> str:
    """The FTS5 expression that finds any term of `query`; empty if it has none.

    Every term is quoted, so that nothing in a query is taken for FTS5's syntax. Of a long query the first 64 different
    terms count.
    """
    distinct = list(dict.fromkeys(_terms(query)))[:_QUERY_TERMS]
    return " OR ".join(f'"{term}"' for term in distinct)


def _terms(text: str) -> Iterator[str]:
    for unspaced, word in _RUNS.findall(folded(text)):
        if word:
            yield word
        elif len(unspaced) == 1:
            yield unspaced
        else:
            yield from (unspaced[at : at + 2] for at in range(len(unspaced) - 1))
