from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_safety import Finding
from fulmen_safety.edits import plan_edits, redacted

ACTIONS = ("allow", "redact", "stop")


def finding(start: int, end: int, score: float = 1.0) -> Finding:
    return Finding("d", "privacy_pii", score, start, end, f"{start}-{end}")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8), st.sampled_from(ACTIONS)), max_size=8))
def test_edits_are_disjoint_ordered_and_cover_every_finding(spans: list[tuple[int, int, str]]) -> None:
    judged = [(finding(start, start + length), action) for start, length, action in spans]
    edits = plan_edits(judged, ACTIONS)
    assert all(one.end <= other.start for one, other in pairwise(edits))
    for one, action in judged:
        covering = [edit for edit in edits if edit.start <= one.start and one.end <= edit.end]
        if action != "allow":
            assert len(covering) == 1
            assert ACTIONS.index(covering[0].action) >= ACTIONS.index(action)
    assert plan_edits(reversed(judged), ACTIONS) == edits


def test_overlapping_findings_share_the_strictest_action_and_touching_ones_do_not() -> None:
    edits = plan_edits([(finding(0, 4), "redact"), (finding(3, 6), "stop"), (finding(6, 8), "redact")], ACTIONS)
    assert [(edit.start, edit.end, edit.action) for edit in edits] == [(0, 6, "stop"), (6, 8, "redact")]


def test_redaction_keeps_the_rest_as_it_was() -> None:
    edits = plan_edits([(finding(2, 4), "redact"), (finding(6, 7), "redact")], ACTIONS)
    assert redacted("ab12cd3e", edits, lambda one, found: f"<{found}>") == "ab<12>cd<3>e"
