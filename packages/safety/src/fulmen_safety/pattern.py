"""Bounded patterns, and from each the expression of everything that could still *become* a match.

A pattern is put together from a few nodes, each of bounded length and without unbounded repetition, so that matching is
linear in the text. From the same nodes come two regular expressions:

* `Node.full` matches the thing;
* `Node.partial` also matches where the text ends too early: every step may be ``\\Z`` instead. If it matches from
  ``i`` to the end of a text, a longer text might have a match at ``i``; if it does not, no longer text can, nor can a
  match at ``i`` that is already there change. That is the exact hold-back of a stream, derived and not written by hand.

Character classes are always explicit (``0-9``, never ``\\d``): ``\\d``, ``\\w`` and ``\\b`` see no boundary between a
Han character and a Latin letter or digit, and would miss whatever is glued to Chinese text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of a pattern. `shortest` and `longest` are lengths of its matches in characters."""

    full: str
    partial: str
    shortest: int
    longest: int
    classes: frozenset[str]  # bodies of the character classes in it


def chars(body: str) -> Node:
    """One character of the class ``[body]``, e.g. ``chars("0-9A-F")``; ``^`` first negates."""
    return Node(f"[{body}]", f"(?:[{body}]|\\Z)", 1, 1, frozenset({body}))


def literal(text: str, *, ignore_case: bool = False) -> Node:
    """The characters of `text`, in order."""
    return seq(*(chars(_class_of(char, ignore_case)) for char in text))


def seq(*nodes: Node) -> Node:
    """One after the other."""
    return Node(
        "".join(node.full for node in nodes),
        "".join(node.partial for node in nodes),
        sum(node.shortest for node in nodes),
        sum(node.longest for node in nodes),
        frozenset().union(*(node.classes for node in nodes)),
    )


def either(*nodes: Node) -> Node:
    """The first of these that lets the rest match."""
    return Node(
        f"(?:{'|'.join(node.full for node in nodes)})",
        f"(?:{'|'.join(node.partial for node in nodes)})",
        min(node.shortest for node in nodes),
        max(node.longest for node in nodes),
        frozenset().union(*(node.classes for node in nodes)),
    )


def repeat(node: Node, low: int, high: int) -> Node:
    """Between `low` and `high` times, as often as possible."""
    times = f"{{{low}}}" if low == high else f"{{{low},{high}}}"
    return Node(
        f"(?:{node.full}){times}", f"(?:{node.partial}){times}", low * node.shortest, high * node.longest, node.classes
    )


def maybe(node: Node) -> Node:
    """Once or not at all."""
    return repeat(node, 0, 1)


NOTHING = seq()


def certain(_: str) -> float:
    """Accept whatever matched."""
    return 1.0


@dataclass(frozen=True)
class Pattern:
    """A kind of thing to find.

    Args:
        label: what a finding is called, e.g. ``"email"``.
        body: the thing. At each start the greedy match is tried, and only that.
        anchor: a cheap regular expression that every match of context and body contains, starting with a literal or a
            class (not repeated: ``[0-9][0-9]{8}`` is found several times as fast as ``[0-9]{9}``); the text is searched
            around its occurrences only.
        context: what must stand directly before and is not part of the finding.
        not_before: pieces of fixed length, none of which may stand directly before the whole.
        not_after: what may not stand directly after it.
        accept: the score in (0, 1] of a matched text, or 0 if it is none after all (a wrong check digit).
    """

    label: str
    body: Node
    anchor: str
    context: Node = NOTHING
    not_before: tuple[Node, ...] = ()
    not_after: Node = NOTHING
    accept: Callable[[str], float] = certain
    expression: re.Pattern[str] = field(init=False)
    unfinished: re.Pattern[str] = field(init=False)
    longest: int = field(init=False)  # the most characters that decide a match from its start on
    look_behind: int = field(init=False)  # the most characters before a finding that decide it
    _ascii: frozenset[str] = field(init=False)  # what a match may consist of; the classes in full for the rest
    _classes: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        for node in self.not_before:
            if node.shortest != node.longest:
                raise ValueError(f"pattern {self.label}: a look-behind needs a fixed length, not {node.full}")
        behind = "".join(f"(?<!{node.full})" for node in self.not_before)
        after = f"(?!{self.not_after.full})" if self.not_after.longest else ""
        rest = seq(self.context, self.body, self.not_after)
        classes = re.compile("|".join(f"[{body}]" for body in sorted(rest.classes)))
        object.__setattr__(self, "expression", re.compile(f"{behind}{self.context.full}({self.body.full}){after}"))
        object.__setattr__(self, "unfinished", re.compile(f"{behind}{rest.partial}\\Z"))
        behind_body = max((node.longest for node in self.not_before), default=0) + self.context.longest
        object.__setattr__(self, "longest", rest.longest)
        object.__setattr__(self, "look_behind", behind_body)
        object.__setattr__(self, "_classes", classes)
        object.__setattr__(self, "_ascii", frozenset(char for char in map(chr, range(128)) if classes.match(char)))

    def matches(self, text: str, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield (start, end, score) of the finding at each match that starts in ``[start, stop)``, overlapping ones
        too."""
        search, accept = self.expression.search, self.accept
        end = stop + self.longest  # all that decides a match which starts before `stop`
        while match := search(text, start, end):
            if match.start() >= stop:
                return
            if score := accept(match[1]):
                yield match.start(1), match.end(1), score
            start = match.start() + 1

    def admits(self, char: str) -> bool:
        """Return whether a match, or what decides it, may contain the character."""
        return char in self._ascii or (char >= "\x80" and self._classes.match(char) is not None)

    def may_start(self, before: str, beginning: str) -> bool:
        """Return whether a match, context included, may start with these characters, be at an end within them, or have
        its end decided by them; `before` stands before it, a character or none. Of what must not stand further back
        nothing is known.
        """
        text, start = before + beginning, len(before)
        return (self.unfinished.match(text, start) or self.expression.match(text, start)) is not None

    def hold_from(self, text: str) -> int:
        """Return the first index from which `text` to its end might still become a match, or ``len(text)``."""
        end = start = len(text)
        lowest = max(0, end - self.longest)
        while start > lowest and self.admits(text[start - 1]):
            start -= 1
        if start == end:
            return end
        match = self.unfinished.search(text, start)
        return match.start() if match else end


def _class_of(char: str, ignore_case: bool) -> str:
    """The class body of one character; a character whose other case is longer than one keeps its own case only."""
    forms = {char, char.lower(), char.upper()} if ignore_case else {char}
    return "".join(sorted(re.escape(form) for form in forms if len(form) == 1))
