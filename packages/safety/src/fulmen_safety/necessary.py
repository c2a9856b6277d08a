"""What must stand in a text for a regular expression to match anywhere in it: a cheap question to ask first.

Each clause is a set of literals one of which is part of every match, read off the parsed expression. What the reading
does not know gives no clause, so the worst that a new construct can do is to ask the expression for nothing.

Literals are looked for all at once, through the pairs and triples of characters that they are made of: a text that has
those may yet lack the literal, never the other way round.

Legend: N characters, G pairs and triples of the literals, L literals, C clauses, P expressions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: As `re.compile` parses: there is no public way to the tree.
_parser: Any = import_module("re._parser")

Clause = frozenset[str]

#: Spellings of one piece that are told apart; with more it counts as unknown.
_MOST_SPELLINGS = 64
#: A shorter literal is in nearly every text.
_SHORTEST = 2
_BITS = 16
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)


class Gate:
    """Says which of some expressions may match in a text.

    Args:
        needs: the clauses of each expression, if it has any.
    """

    def __init__(self, needs: Sequence[Sequence[Clause]]) -> None:
        told = list(dict.fromkeys(clause for each in needs for clause in each))
        literals = sorted({literal for clause in told for literal in clause})
        place_of_literal = {literal: place for place, literal in enumerate(literals)}
        place_of_clause = {clause: place for place, clause in enumerate(told)}
        self._grams_G, self._literal_L = _joined([_grams(literal).tolist() for literal in literals])
        self._of_clause, self._clause_C = _joined([[place_of_literal[one] for one in clause] for clause in told])
        always = len(told)
        self._of_expression, self._expression_P = _joined(
            [[*(place_of_clause[clause] for clause in each), always] for each in needs]
        )

    def possible(self, text: str) -> list[int]:
        """Return the places of the expressions that may match, in order."""
        seen = np.zeros(1 << _BITS, np.bool_)
        seen[_grams(text)] = True
        literal_L = np.logical_and.reduceat(seen[self._grams_G], self._literal_L)
        clause_C = np.logical_or.reduceat(literal_L[self._of_clause], self._clause_C)
        expression_P = np.logical_and.reduceat(np.append(clause_C, True)[self._of_expression], self._expression_P)
        return [int(place) for place in np.flatnonzero(expression_P)]


def _grams(text: str) -> NDArray[np.intp]:
    """Return the pairs and triples of a text, hashed."""
    codes_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    pairs = codes_N[:-1] * _FACTORS[0] + codes_N[1:] * _FACTORS[1]
    triples = pairs[:-1] + codes_N[2:] * _FACTORS[2]
    return (np.concatenate([pairs, triples]) >> np.uint32(32 - _BITS)).astype(np.intp)


def _joined(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the lists one after another, and where each begins."""
    begins = np.cumsum([0, *(len(one) for one in lists[:-1])], dtype=np.intp)
    return np.array([one for each in lists for one in each], np.intp), begins


def clauses(expression: str) -> tuple[Clause, ...]:
    """Return the clauses of an expression without flags, those with the fewest literals first."""
    found = dict.fromkeys(_clauses(_parser.parse(expression)))
    return tuple(sorted(found, key=lambda clause: (len(clause), sorted(clause))))


def _clauses(sequence: Iterable[tuple[Any, Any]]) -> list[Clause]:
    found: list[Clause] = []
    run = {""}  # spellings of what stands without a break up to here
    for node in sequence:
        spelled = _spellings([node])
        if spelled is not None and len(run) * len(spelled) <= _MOST_SPELLINGS:
            run = {before + after for before, after in product(run, spelled)}
            continue
        found += _clause(run)
        run = spelled or {""}
        if spelled is None:
            found += _inside(*node)
    return found + _clause(run)


def _clause(literals: Iterable[str]) -> list[Clause]:
    """Return the clause of these literals, if it says anything; one that contains another is left out."""
    distinct = sorted(set(literals), key=len)
    if not distinct or len(distinct[0]) < _SHORTEST:
        return []
    kept: list[str] = []
    for literal in distinct:
        if not any(shorter in literal for shorter in kept):
            kept.append(literal)
    return [frozenset(kept)]


def _inside(operation: Any, argument: Any) -> list[Clause]:
    """Return the clauses of a node that has no short list of spellings."""
    match str(operation):
        case "SUBPATTERN":
            return _clauses(argument[3])
        case "MAX_REPEAT" | "MIN_REPEAT" if argument[0] > 0:
            return _clauses(argument[2])
        case "BRANCH":
            told = [_clauses(alternative) for alternative in argument[1]]
            if all(told):
                return _clause(literal for each in told for literal in max(each, key=_selective))
    return []


def _selective(clause: Clause) -> tuple[int, int]:
    return min(map(len, clause)), -len(clause)


def _spellings(sequence: Sequence[tuple[Any, Any]] | Any) -> set[str] | None:
    """Return all that a sequence can match, None if it is too much or unknown."""
    whole = {""}
    for operation, argument in sequence:
        part: set[str] | None = None
        match str(operation):
            case "LITERAL":
                part = {chr(argument)}
            case "ASSERT" | "ASSERT_NOT" | "AT":
                part = {""}
            case "SUBPATTERN" if not argument[1] and not argument[2]:
                part = _spellings(argument[3])
            case "MAX_REPEAT" | "MIN_REPEAT" if argument[:2] in ((0, 1), (1, 1)):
                part = _spellings(argument[2])
                if part is not None and argument[0] == 0:
                    part = part | {""}
            case "IN" if all(str(kind) == "LITERAL" for kind, _ in argument):
                part = {chr(code) for _, code in argument}
            case "BRANCH":
                parts = [_spellings(alternative) for alternative in argument[1]]
                part = None if None in parts else {one for some in parts for one in some or ()}
        if part is None or len(whole) * len(part) > _MOST_SPELLINGS:
            return None
        whole = {before + after for before, after in product(whole, part)}
    return whole
