"""A text with disguises undone, and where each of its characters comes from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class View:
    """A text, and where each of its characters comes from.

    Args:
        name: "raw", "folded", "joined", …; unique among the views of a text.
        text: what detectors see.
        origin: index in `text` -> index of the first raw character that it comes from; never falls.
        end: index in `text` -> index after the last raw character that it comes from; never falls.
        decided: how many raw characters the view speaks for; what lies beyond may still change how it looks.
    """

    name: str
    text: str
    origin: Callable[[int], int]
    end: Callable[[int], int]
    decided: int

    def spells(self, raw: View) -> bool:
        """Return whether it is the folded view of `raw`, and has one character for each of it."""
        return self.name == "folded" and len(self.text) == len(raw.text)

    def raw_index(self, index: int) -> int:
        """Return where the view's character `index` starts in the raw text; at the view's end, what it speaks for."""
        return self.origin(index) if index < len(self.text) else self.decided

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the raw span of the view's span, which must not be empty."""
        return self.origin(start), self.end(end - 1)

    def index_from(self, raw_index: int) -> int:
        """Return the view's first character that comes from `raw_index` or later; its length if there is none."""
        if self.origin is _identity:
            return min(raw_index, len(self.text))
        return bisect_left(range(len(self.text)), raw_index, key=self.origin)

    def raw_index_before(self, raw_index: int, count: int) -> int:
        """Return the raw index at which `count` of the view's characters lie before `raw_index`, or 0."""
        index = self.index_from(raw_index)
        return self.origin(index - count) if index >= count and self.text else 0


def raw_view(raw: str) -> View:
    """Return the text as it was written."""
    return View("raw", raw, _identity, _next, len(raw))


def _identity(index: int) -> int:
    return index


def _next(index: int) -> int:
    return index + 1


class Edit(NamedTuple):
    """``text[start:end]`` of a view becomes `new`; each of `new`'s characters comes from the whole stretch."""

    start: int
    end: int
    new: str


def edited(base: View, name: str, edits: Iterable[Edit], *, stop: int | None = None) -> View:
    """Return `base` with `edits` made, which are disjoint and in order, up to its index `stop`."""
    pieces: list[str] = []
    uneven: list[Edit] = []
    last = 0
    for edit in edits:
        pieces += base.text[last : edit.start], edit.new
        last = edit.end
        if edit.end - edit.start != 1 or len(edit.new) != 1:
            uneven.append(edit)
    pieces.append(base.text[last:stop])
    decided = base.decided if stop is None else base.raw_index(stop)
    return mapped(base, name, "".join(pieces), uneven, decided)


def mapped(base: View, name: str, text: str, uneven: Iterable[Edit], decided: int) -> View:
    """Return the view `text` of which each character comes from one of `base`, in order, but for those in `uneven`."""
    starts: list[int] = []  # in `text`
    stretches: list[tuple[int, int, int]] = []  # in `base`: start, end; characters in `text`
    ahead = 0
    for edit in uneven:
        starts.append(edit.start + ahead)
        stretches.append((edit.start, edit.end, len(edit.new)))
        ahead += len(edit.new) - (edit.end - edit.start)
    if not starts:
        return View(name, text, base.origin, base.end, decided)

    def origin(index: int) -> int:
        place = bisect_right(starts, index) - 1
        if place < 0:
            return base.origin(index)
        start, end, length = stretches[place]
        beyond = index - starts[place] - length
        return base.origin(start) if beyond < 0 else base.origin(end + beyond)

    def last(index: int) -> int:
        place = bisect_right(starts, index) - 1
        if place < 0:
            return base.end(index)
        _, end, length = stretches[place]
        beyond = index - starts[place] - length
        return base.end(end - 1) if beyond < 0 else base.end(end + beyond)

    return View(name, text, origin, last, decided)
