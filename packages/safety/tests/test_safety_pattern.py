from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_safety.conformance import faults
from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq
from fulmen_safety.pattern_detector import PatternDetector


def nodes() -> st.SearchStrategy[Node]:
    """Any small pattern over a, b and c."""
    leaves = st.sampled_from(["a", "b", "c", "ab", "a-c"]).map(chars)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: seq(*parts)),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: either(*parts)),
            st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
                lambda one: repeat(one[0], one[1], one[1] + one[2])
            ),
        ),
        max_leaves=6,
    )


def detector_of(body: Node, before: Node | None, after: Node | None, context: Node | None) -> PatternDetector:
    pattern = Pattern(
        "thing",
        body,
        anchor="[abc]",
        context=context or seq(),
        not_before=(before,) if before else (),
        not_after=after or seq(),
    )
    return PatternDetector("toy", "privacy_pii", [pattern])


FIXED = st.sampled_from([chars("a"), chars("c"), literal("ab"), chars("a-c")])


@settings(max_examples=50, deadline=None)
@given(
    nodes().filter(lambda node: node.shortest > 0),
    st.none() | FIXED,
    st.none() | nodes().filter(lambda node: node.shortest > 0),
    st.none() | nodes(),
    st.text("abcx", max_size=14),
)
def test_any_pattern_keeps_the_laws_of_streaming(
    body: Node, before: Node | None, after: Node | None, context: Node | None, text: str
) -> None:
    assert faults(detector_of(body, before, after, context), text, categories=["privacy_pii"]) == []


@settings(max_examples=50, deadline=None)
@given(nodes().filter(lambda node: node.shortest > 0), st.text("abcx ", max_size=60))
def test_searching_around_anchors_finds_what_searching_everywhere_finds(body: Node, text: str) -> None:
    detector = detector_of(body, None, None, None)
    everywhere = [
        (match.start(), match.end())
        for start in range(len(text))
        if (match := re.compile(body.full).match(text, start))
    ]
    assert sorted((one.start, one.end) for one in detector.scan(text)) == everywhere


@settings(max_examples=50, deadline=None)
@given(nodes(), st.text("abc", max_size=8))
def test_lengths_are_bounds_and_partial_means_a_beginning(node: Node, text: str) -> None:
    if match := re.fullmatch(node.full, text):
        assert node.shortest <= len(match[0]) <= node.longest
        for cut in range(len(text) + 1):
            assert re.match(node.partial + r"\Z", text[:cut])


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("KkeEyY=: ſ\u212aaA"), max_size=40))
def test_an_anchor_that_looks_past_case_is_searched_for_in_every_text_that_may_have_it(text: str) -> None:
    pattern = Pattern("key", repeat(chars("KkEeYy"), 3, 3), "(?i:key)[=:]|(?i:yak)")
    found = {(one.start, one.end) for one in PatternDetector("toy", "ip_secrets", [pattern]).scan(text)}
    around = {place.start() for place in re.finditer("(?i:key)[=:]|(?i:yak)", text)}
    triples = [(match.start(1), match.end(1)) for match in re.finditer("(?=([KkEeYy]{3}))", text)]
    assert {one for one in triples if one[0] in around} <= found


def test_only_what_might_become_a_match_is_held() -> None:
    mobile = PatternDetector(
        "toy",
        "privacy_pii",
        [Pattern("mobile", seq(literal("1"), chars("3-9"), repeat(chars("0-9"), 9, 9)), "[0-9]{7}")],
    )
    assert mobile.hold_from("in 2023 and 1") == len("in 2023 and ")
    assert mobile.hold_from("in 2023 and 12") == len("in 2023 and 12")
    assert mobile.hold_from("电话13800") == 2
    assert mobile.hold_from("电话13800。") == len("电话13800。")


def test_a_look_behind_of_varying_length_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed length"):
        Pattern("thing", chars("a"), "a", not_before=(maybe(chars("b")),))
