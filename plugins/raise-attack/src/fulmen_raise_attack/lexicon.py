"""The rules of `data/lexicon.toml`, compiled. Two regular expressions per rule, without unbounded gaps: of its patterns
in ASCII, and of those with Han characters, so that text of one script is not searched for the other's.
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

#: Between two tokens of a pattern: blanks and signs, so that line breaks and quotes do not hide it.
_BETWEEN = r"[\W_]{1,4}"
_IN_SENTENCE = "[^.!?。！？]"
_LATIN = re.compile("[a-z]")
_TOKEN = re.compile(r"<(?P<list>\w+)>|~(?P<gap>\d+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One piece of evidence: what family it belongs to, how much it says alone, and how to see it in each script."""

    family: str
    weight: float
    ascii: re.Pattern[str] | None
    other: re.Pattern[str] | None


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
    ascii_only, other = (
        re.compile(f"(?<![a-z])(?:{'|'.join(group)})") if group else None
        for group in (by_script[True], by_script[False])
    )
    return Rule(rule["family"], rule["weight"], ascii_only, other)


def evidence(text: str) -> Iterator[Evidence]:
    """Yield every piece of evidence in `text`, rule by rule. Case does not count."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered; offsets must not
        lowered = "".join(low if len(low := char.lower()) == 1 else char for char in text)
    latin, han = bool(_LATIN.search(lowered)), not lowered.isascii()
    for rule in rules():
        for expression in (rule.ascii if latin else None, rule.other if han else None):
            if expression:
                for match in expression.finditer(lowered):
                    yield Evidence(rule.family, rule.weight, match.start(), match.end())


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
