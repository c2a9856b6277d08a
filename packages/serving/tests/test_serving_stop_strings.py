"""Claims about stop strings: where an answer is cut does not depend on how its text arrives."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fulmen_serving.engine.stop_strings import StopStrings

TEXT = st.text("ab中", max_size=14)
STOPS = st.lists(st.text("ab中", min_size=1, max_size=4), max_size=3)


def feed(pieces, stops):
    stream, out = StopStrings(stops), []
    for piece in pieces:
        text, stopped = stream.push(piece)
        out.append(text)
        if stopped:
            return "".join(out), True
    return "".join([*out, stream.finish()]), False


def expected(text, stops):
    """By definition: the shortest beginning that ends in a stop string, without the longest such stop string."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(text=TEXT, stops=STOPS, cuts=st.lists(st.integers(0, 14), max_size=6))
def test_the_cut_is_the_same_for_every_chunking(text, stops, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert feed(pieces, stops) == expected(text, stops)
    assert feed(list(text), stops) == expected(text, stops)


@given(text=TEXT, stops=STOPS)
def test_what_was_delivered_never_holds_a_part_of_the_stop_string_that_follows(text, stops):
    stream, delivered = StopStrings(stops), ""
    whole, _ = expected(text, stops)
    for character in text:
        piece, stopped = stream.push(character)
        delivered += piece
        assert whole.startswith(delivered)
        if stopped:
            break


@pytest.mark.parametrize(
    ("text", "stops", "held"), [("ab", ["abc"], "ab"), ("xab", ["abc", "b!"], "ab"), ("aab", ["aabaab"], "aab")]
)
def test_only_what_could_become_a_stop_string_waits(text, stops, held):
    stream = StopStrings(stops)
    assert stream.push(text) == (text.removesuffix(held), False)
    assert stream.finish() == held
