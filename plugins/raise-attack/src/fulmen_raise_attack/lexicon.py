"""The rules of `data/lexicon.toml`, compiled: a regular expression per pattern, without unbounded gaps. Those in ASCII
and those with Han characters are kept apart, so that text of one script is not searched for the other's; and a pattern
is searched for only where the words stand that it cannot do without (`necessary`), which in ordinary text is rare.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any

from fulmen_safety.necessary import Clause, Gate, clauses

#: Between two tokens of a pattern: blanks and signs, so that line breaks and quotes do not hide it.
_BETWEEN = r"[\W_]{1,4}"
_IN_SENTENCE = "[^.!?。！？]"
_LATIN = re.compile("[a-z]")
_TOKEN = re.compile(r"<(?P<list>\w+)>|~(?P<gap>\d+)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """An expression, and the clauses each of which has a literal in any text that it matches in."""

    expression: re.Pattern[str]
    needs: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One piece of evidence: what family it belongs to, how much it says alone, and how to see it in each script: by
    patterns of which the first that matches at a place counts.
    """

    family: str
    weight: float
    ascii: tuple[Pattern, ...]
    other: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A place where a rule holds."""

    family: str
    weight: float
    start: int
    end: int


@cache
def rules() -> tuple[Rule, ...]:
    """Return the shipped rules."""
    data = tomllib.loads((resources.files("fulmen_raise_attack") / "data/lexicon.toml").read_text("utf-8"))
    words: Mapping[str, Sequence[str]] = data["words"]
    return tuple(_rule(rule, words) for rule in data["rules"])


def _rule(rule: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> Rule:
    by_script: dict[bool, list[str]] = {True: [], False: []}
    for pattern in rule["patterns"]:
        expression = _expression(pattern, words)
        by_script[expression.replace(_IN_SENTENCE, "").isascii()].append(expression)
    ascii_only, other = (tuple(_pattern(one) for one in by_script[script]) for script in (True, False))
    return Rule(rule["family"], rule["weight"], ascii_only, other)


def _pattern(expression: str) -> Pattern:
    bordered = f"(?<![a-z])(?:{expression})"
    return Pattern(re.compile(bordered), clauses(bordered, bordered=True))


def evidence(text: str) -> Iterator[Evidence]:
    """Yield every piece of evidence in `text`, rule by rule. Case does not count."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered; offsets must not
        lowered = "".join(low if len(low := char.lower()) == 1 else char for char in text)
    latin, han = bool(_LATIN.search(lowered)), not lowered.isascii()
    possible: dict[tuple[int, bool], list[re.Pattern[str]]] = {}
    gate, patterns = _gate()
    for place in gate.possible(lowered):
        number, ascii_only, expression = patterns[place]
        if latin if ascii_only else han:
            possible.setdefault((number, ascii_only), []).append(expression)
    for (number, _), expressions in possible.items():
        rule = rules()[number]
        for start, end in _places(expressions, lowered):
            yield Evidence(rule.family, rule.weight, start, end)


def prepare() -> None:
    """Read and compile the rules, which takes tenths of a second, unless that is done."""
    _gate()


@cache
def _gate() -> tuple[Gate, tuple[tuple[int, bool, re.Pattern[str]], ...]]:
    """Return what says which patterns to search for, and of each its rule, whether it is in ASCII, and itself."""
    listed = [
        (place, ascii_only, one)
        for place, rule in enumerate(rules())
        for ascii_only, patterns in ((True, rule.ascii), (False, rule.other))
        for one in patterns
    ]
    gate = Gate([one.needs for _, _, one in listed])
    return gate, tuple((place, ascii_only, one.expression) for place, ascii_only, one in listed)


def _places(expressions: Sequence[re.Pattern[str]], text: str) -> Iterator[tuple[int, int]]:
    """Yield what one expression with these as its alternatives would match, from left to right."""
    following = [match for one in expressions if (match := one.search(text))]
    while following:
        first = min(following, key=re.Match.start)  # of several, the earlier alternative
        yield first.span()
        end = first.end()
        following = [
            later for match in following if (later := match if match.start() >= end else match.re.search(text, end))
        ]


def _expression(pattern: str, words: Mapping[str, Sequence[str]]) -> str:
    """Translate a pattern of the lexicon into a regular expression."""
    parts: list[str] = []
    for token in _split(pattern):
        special = _TOKEN.fullmatch(token)
        if special and special["gap"]:
            parts.append(f"(?![a-z]){_IN_SENTENCE}{{0,{special['gap']}}}?(?<![a-z])")
        else:
            inner = _TOKEN.sub(lambda match: _alternatives(words[match["list"]]), token)
            parts.append(_stems(inner))
    expression = parts[0]
    for before, part in pairwise(parts):
        glue = "" if before.startswith("(?![a-z])[^") or part.startswith("(?![a-z])[^") else _BETWEEN
        expression += glue + part
    return f"(?:{expression}){_word_end(parts[-1])}"


def _split(pattern: str) -> list[str]:
    """Split at blanks outside of brackets; what is in brackets is one token, its blanks standing for any separation."""
    tokens, depth, current = [], 0, ""
    for place, char in enumerate(pattern):
        escaped = place > 0 and pattern[place - 1] == "\\"
        if not escaped:
            depth += (char in "([") - (char in ")]")
        if char == " " and depth == 0:
            tokens.append(current)
            current = ""
        else:
            current += char
    return [token for token in [*tokens, current] if token]


def _alternatives(terms: Sequence[str]) -> str:
    longest_first = sorted(terms, key=len, reverse=True)
    return "(?:" + "|".join(term.replace(" ", _BETWEEN) for term in longest_first) + ")"


def _stems(token: str) -> str:
    """A star after a letter stands for the rest of the word; a blank in brackets for any separation."""
    token = re.sub(r"(?<=[a-z])\*", "[a-z]*", token)
    return re.sub(r" (?!\?)", lambda _: _BETWEEN, token)


def _word_end(last: str) -> str:
    """A pattern that ends in a Latin letter ends there; one that ends in a Han character or a sign may be followed by
    anything.
    """
    return "" if re.search(r"[^\x00-\x7f][)\]?]*$", last) else r"(?![a-z])"
