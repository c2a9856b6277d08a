"""From findings to changes of the text: overlapping findings become one edit, the strictest action wins.

This runs last, after every detector has seen the text as it was written, so offsets stay valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fulmen_core.guard import Finding


@dataclass(frozen=True, slots=True)
class Edit:
    """One stretch of text to change, and the finding that speaks for it."""

    start: int
    end: int
    action: str
    finding: Finding


def plan_edits(judged: Iterable[tuple[Finding, str]], strictness: Sequence[str]) -> list[Edit]:
    """Merge findings into disjoint edits, ordered by place.

    Args:
        judged: each finding with its action. Those whose action is the mildest change nothing and are left out.
        strictness: the phase's actions, the mildest first.

    Returns:
        Edits that cover every finding with an action. Findings that overlap share one; those that merely touch do
        not. The strictest action decides, and among the findings that have it the longest, then the highest score,
        speaks for it.
    """
    rank = {action: place for place, action in enumerate(strictness)}
    edits: list[Edit] = []
    for finding, action in sorted(judged, key=lambda one: (one[0].start, -one[0].end, one[0].detector, one[0].label)):
        if rank[action] == 0:
            continue
        edit = Edit(finding.start, finding.end, action, finding)
        if edits and finding.start < edits[-1].end:
            edit = _merged(edits.pop(), edit, rank)
        edits.append(edit)
    return edits


def redacted(text: str, edits: Iterable[Edit], replacement: Callable[[Finding, str], str]) -> str:
    """Return `text` with each edit's stretch replaced by what ``replacement(finding, found)`` gives."""
    pieces, last = [], 0
    for edit in edits:
        pieces += [text[last : edit.start], replacement(edit.finding, text[edit.finding.start : edit.finding.end])]
        last = edit.end
    return "".join([*pieces, text[last:]])


def _merged(one: Edit, other: Edit, rank: dict[str, int]) -> Edit:
    def weight(edit: Edit) -> tuple[int, int, float]:
        return rank[edit.action], edit.finding.end - edit.finding.start, edit.finding.score

    winner = one if weight(one) >= weight(other) else other
    return Edit(one.start, max(one.end, other.end), winner.action, winner.finding)
