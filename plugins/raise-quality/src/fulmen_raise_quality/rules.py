"""The bounds that a document's measures are held against, and how far beyond one it is.

A score is 0.5 at the bound and goes to 1 beyond it: ``value / (value + bound)`` for a measure that must not be high,
``bound / (value + bound)`` for one that must not be low. So the policy's threshold says how strict the rules are, and
0.5 means the published bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fulmen_raise_quality.measures import Measures
from fulmen_raise_quality.units import Kind


@dataclass(frozen=True, slots=True)
class Bound:
    """What a measure may be: at most, or at least, `value`."""

    side: Literal["most", "least"]
    value: float

    def score(self, measured: float) -> float:
        """How far a measure is beyond the bound, in [0, 1]; 0.5 exactly at it."""
        total = measured + self.value
        if total == 0:
            return 0.5
        return (measured if self.side == "most" else self.value) / total


def _most(**bounds: float) -> dict[str, Bound]:
    return {name: Bound("most", value) for name, value in bounds.items()}


_PROSE = _most(
    garbled=0.004,
    symbols=0.1,  # Gopher
    links=0.04,
    exclamations=0.08,
    digits=0.25,
    top_2_gram=0.20,  # Gopher, this and the next
    top_3_gram=0.18,
    top_4_gram=0.16,
    duplicate_5_grams=0.15,
    duplicate_10_grams=0.10,
    bullet_lines=0.90,  # Gopher
    ellipsis_lines=0.30,  # Gopher
    short_lines=0.67,  # FineWeb
    unended_lines=0.88,  # FineWeb
    duplicate_lines=0.30,  # Gopher
    duplicate_line_characters=0.20,  # Gopher
    boilerplate=0.15,
)

#: Kind of text -> rule -> bound.
BOUNDS: Mapping[Kind, Mapping[str, Bound]] = {
    "en": _PROSE
    | _most(capitals=0.4, wordless=0.2, word_length=10.0)  # Gopher: 80 % of the words have a letter
    | {"stop_words": Bound("least", 1.99)},  # Gopher: two of eight
    "zh": _PROSE | {"stop_words": Bound("least", 2.99)},
    "code": _most(garbled=0.004, line_length=100.0, longest_line=1000.0, generated=0.5)  # StarCoder
    | {"letters": Bound("least", 0.25)},  # StarCoder
}


def rule_names() -> list[str]:
    """Every rule's name, sorted."""
    return sorted({name for bounds in BOUNDS.values() for name in bounds})


def scored(kind: Kind, measures: Measures) -> dict[str, float]:
    """Return rule -> score for each measure that was taken."""
    return {name: bound.score(measures[name]) for name, bound in BOUNDS[kind].items() if name in measures}
