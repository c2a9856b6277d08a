"""What must stand in a text for a regular expression to match anywhere in it: a cheap question to ask first.

Each clause is a set of literals one of which is part of every match, read off the parsed expression. What the reading
does not know gives no clause, so the worst that a new construct can do is to ask the expression for nothing.

Literals are looked for all at once, through the characters, pairs and triples that they are made of: a text that has
those may yet lack the literal, never the other way round. What stands between words is one `BORDER` there, whatever it
is, so that several words are one literal and "act" is not in every "fact" and "action".

Legend: N characters, G pieces of the literals, L literals, C clauses, P expressions.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: As `re.compile` parses: there is no public way to the tree.
_parser: Any = import_module("re._parser")
_LETTER = repr(_parser.parse("[a-z]"))

Clause = frozenset[str]
Codes = NDArray[np.uint32]

#: In a literal: what is no letter of a to z, one or many, or the end of the text.
BORDER = "\0"

#: Spellings of one piece that are told apart; with more it counts as unknown.
_MOST_SPELLINGS = 24
#: A shorter literal is in nearly every text, unless it is of another sign than these.
_SHORTEST = 2
_FREQUENT = frozenset(" \n\t.,:;!?'\"-()/" + string.ascii_letters + string.digits)
_BITS = 16
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)
_WORD_FACTORS = np.array([0x27D4EB2F, 0x165667B1, 0xD3A2646D], np.uint32)
_LETTERS = frozenset(string.ascii_lowercase)
#: Pieces of a literal that a text is asked for.
_ASKED = 12
_END = np.zeros(1, np.uint32)
_BORDERS = re.compile(f"{BORDER}+")


class Gate:
    """Says which of some expressions may match in a text.

    Args:
        needs: the clauses of each expression, if it has any, with or without borders. With borders they are those of
            expressions that are searched for in text without capitals.
    """

    def __init__(self, needs: Sequence[Sequence[Clause]]) -> None:
        told = list(dict.fromkeys(clause for each in needs for clause in each))
        literals = sorted({literal for clause in told for literal in clause})
        place_of_literal = {literal: place for place, literal in enumerate(literals)}
        place_of_clause = {clause: place for place, clause in enumerate(told)}
        self._grams_G, self._literal_L = _joined([_pieces_of(literal) for literal in literals])
        self._of_clause, self._clause_C = _joined([[place_of_literal[one] for one in clause] for clause in told])
        always = len(told)
        self._of_expression, self._expression_P = _joined(
            [[*(place_of_clause[clause] for clause in each), always] for each in needs]
        )

    def possible(self, text: str) -> list[int]:
        """Return the places of the expressions that may match, in order."""
        seen = np.zeros(1 << _BITS, np.bool_)
        codes_N = _codes(text)
        for grams in (*_grams(codes_N, _FACTORS), _words(np.concatenate([_END, codes_N, _END]))):
            seen[grams] = True
        literal_L = np.logical_and.reduceat(seen[self._grams_G], self._literal_L)
        clause_C = np.logical_or.reduceat(literal_L[self._of_clause], self._clause_C)
        expression_P = np.logical_and.reduceat(np.append(clause_C, True)[self._of_expression], self._expression_P)
        return [int(place) for place in np.flatnonzero(expression_P)]


def _pieces_of(literal: str) -> list[int]:
    """Return what every text that has the literal has of `_grams` and `_words`: some of the longest."""
    found = [_words(_codes(literal))] if BORDER in literal else []
    for run in literal.split(BORDER):
        if not found or not set(run) <= _LETTERS:
            found.append(_grams(_codes(run), _FACTORS)[min(len(run), 3) - 1])
    pieces: list[int] = np.concatenate(found).tolist()
    return [pieces[place] for place in np.linspace(0, len(pieces) - 1, min(_ASKED, len(pieces)), dtype=np.intp)]


def _words(codes_N: Codes) -> NDArray[np.intp]:
    """Return the triples of letters a to z, hashed, with one `BORDER` for all that stands between two."""
    letters = np.where((codes_N >= ord("a")) & (codes_N <= ord("z")), codes_N, np.uint32(0))
    kept = letters != 0
    kept[1:] |= kept[:-1]
    kept[:1] = True
    return _grams(letters[kept], _WORD_FACTORS)[2]


def _grams(codes_N: Codes, factors: Codes) -> list[NDArray[np.intp]]:
    """Return the characters, the pairs and the triples, hashed."""
    single = codes_N * factors[0]
    pairs = single[:-1] + codes_N[1:] * factors[1]
    triples = pairs[:-1] + codes_N[2:] * factors[2]
    return [(grams >> np.uint32(32 - _BITS)).astype(np.intp) for grams in (single, pairs, triples)]


def _codes(text: str) -> Codes:
    codes_N: Codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return codes_N


def _joined(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the lists one after another, and where each begins."""
    begins = np.cumsum([0, *(len(one) for one in lists[:-1])], dtype=np.intp)
    return np.array([one for each in lists for one in each], np.intp), begins


def clauses(expression: str, *, bordered: bool = False) -> tuple[Clause, ...]:
    """Return the clauses of an expression without flags, those with the fewest literals first.

    Args:
        bordered: whether literals may have a `BORDER`; else each stands in the text as it is.
    """
    found = dict.fromkeys(_Reader(bordered).clauses(_parser.parse(expression)))
    return tuple(sorted(found, key=lambda clause: (len(clause), sorted(clause))))


class _Reader:
    """Reads a parsed expression."""

    def __init__(self, bordered: bool) -> None:
        self.bordered = bordered

    def clauses(self, sequence: Iterable[tuple[Any, Any]]) -> list[Clause]:
        """Return a literal set for each stretch of the sequence that can be spelled out."""
        found: list[Clause] = []
        run = {""}  # spellings of what stands without a break up to here
        for node in sequence:
            spelled = self.spellings([node])
            if spelled is not None and len(run) * len(spelled) <= _MOST_SPELLINGS:
                run = {before + after for before, after in product(run, spelled)}
                continue
            found += _clause(run)
            run = spelled or {""}
            if spelled is None:
                found += self._inside(*node)
        return found + _clause(run)

    def _inside(self, operation: Any, argument: Any) -> list[Clause]:
        """Return the clauses of a node that has no short list of spellings."""
        match str(operation):
            case "SUBPATTERN":
                return self.clauses(argument[3])
            case "MAX_REPEAT" | "MIN_REPEAT" if argument[0] > 0:
                return self.clauses(argument[2])
            case "BRANCH":
                told = [self.clauses(alternative) for alternative in argument[1]]
                if all(told):
                    return _clause(literal for each in told for literal in max(each, key=_selective))
        return []

    def spellings(self, sequence: Sequence[tuple[Any, Any]] | Any) -> set[str] | None:
        """Return all that a sequence can match, None if it is too much or unknown."""
        whole = {""}
        for operation, argument in sequence:
            part: set[str] | None = None
            match str(operation):
                case "LITERAL":
                    part = {chr(argument)}
                case "ASSERT" | "ASSERT_NOT" | "AT":
                    part = {BORDER} if self.bordered and _is_border(operation, argument) else {""}
                case "MAX_REPEAT" | "MIN_REPEAT" if self.bordered and _separates(argument):
                    part = {BORDER}
                case "SUBPATTERN" if not argument[1] and not argument[2]:
                    part = self.spellings(argument[3])
                case "MAX_REPEAT" | "MIN_REPEAT" if argument[:2] in ((0, 1), (1, 1)):
                    part = self.spellings(argument[2])
                    if part is not None and argument[0] == 0:
                        part = part | {""}
                case "IN" if all(str(kind) == "LITERAL" for kind, _ in argument):
                    part = {chr(code) for _, code in argument}
                case "BRANCH":
                    parts = [self.spellings(alternative) for alternative in argument[1]]
                    part = None if None in parts else {one for some in parts for one in some or ()}
            if part is None or len(whole) * len(part) > _MOST_SPELLINGS:
                return None
            whole = {before + after for before, after in product(whole, part)}
        return whole


def _clause(literals: Iterable[str]) -> list[Clause]:
    """Return the clause of these literals, if it says anything; one that contains another is left out."""
    distinct = sorted({_BORDERS.sub(BORDER, literal) for literal in literals}, key=len)
    if not distinct or not all(map(_tells, distinct)):
        return []
    kept: list[str] = []
    for literal in distinct:
        if not any(shorter in literal for shorter in kept):
            kept.append(literal)
    return [frozenset(kept)]


def _tells(literal: str) -> bool:
    bare = literal.replace(BORDER, "")
    return len(bare) >= _SHORTEST or bool(set(bare) - _FREQUENT)


def _selective(clause: Clause) -> tuple[int, int]:
    return min(map(len, clause)), -len(clause)


def _is_border(operation: Any, argument: Any) -> bool:
    """Return whether a node says that no letter of a to z goes before, or that none follows."""
    return str(operation) == "ASSERT_NOT" and repr(argument[1]) == _LETTER


def _separates(repeated: Any) -> bool:
    """Return whether what is repeated at least once is a single character, and no letter of a to z."""
    least, _, inner = repeated
    return (
        least > 0
        and len(inner) == 1
        and str(inner[0][0]) == "IN"
        and all(
            (str(kind) == "LITERAL" and chr(value) not in _LETTERS)
            or (str(kind) == "CATEGORY" and str(value) == "CATEGORY_NOT_WORD")
            for kind, value in inner[0][1]
        )
    )
