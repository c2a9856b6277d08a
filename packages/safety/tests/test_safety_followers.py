"""Claims about reading a stream as it grows: the same as reading it at once, and nothing looked at again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.registry import Registry
from fulmen_safety import Finding
from fulmen_safety.conformance import delivered
from fulmen_safety.deadline import in_turn
from fulmen_safety.detector import incremental
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.learned.features import CHARACTER_NGRAMS, features
from fulmen_safety.learned.place_features import PAIR_SALT, SKIP_SALT, folded, ngram_hashes, pair_hash, word_hash
from fulmen_safety.normalise import is_plain, views
from fulmen_safety.pattern import Pattern, chars, repeat
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.policy import load_policy

PIECES = [
    *(
        "ada@example.net",
        "138",
        "0013",
        "8000",
        "call ",
        "+1 (555) ",
        "tel: ",
        "sk_live_",
        "AKIA",
        'api_key = "',
        "12 ",
    ),
    *(
        "you are all ",
        "stupid ",
        "idiots ",
        "hate ",
        "垃圾",
        "滚",
        "你们都是",
        "傻",
        "电话：",
        "（",
        "）",
        "a b ",
        "i g n ",
        "3.2",
    ),
    *("don’t ", "—", "é", "ﬁ", "Ａ", "\u200b", "🙂", "國", ". ", "\n", "x", " ", "the ", "weather ", "今天天气很好"),
]
#: Marks many words, so that a stream has much to go wrong with.
_SENSITIVE = """
extends = "default"
[[detectors]]
name = "toxicity-answer"
settings = { floor = 0.02 }
[detectors.rules.hate_discrimination]
threshold = 0.05
thresholds = { zh = 0.05 }
output = "redact"
"""
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@pytest.fixture(scope="module")
def default_guard() -> RaiseGuard:
    return RaiseGuard(load_policy(), Registry.discover())


@settings(max_examples=150, deadline=None)
@given(ANSWERS, st.integers(0, 2**32))
def test_by_default_a_stream_says_what_the_answer_judged_at_once_says(
    default_guard: RaiseGuard, answer: str, seed: int
) -> None:
    draw = random.Random(seed)
    cuts = sorted(draw.choices(range(len(answer) + 1), k=draw.randrange(60)))
    chunks = [answer[start:end] for start, end in itertools.pairwise([0, *cuts, len(answer)])]
    assert delivered(default_guard, chunks) == default_guard.judge_output([], answer).text


@pytest.mark.parametrize("seed", range(6))
def test_and_so_does_a_long_one_of_which_the_beginning_is_forgotten(tmp_path: Path, seed: int) -> None:
    """Disguises come and go in it, and with them the views that are read beside the text as it was written."""
    path = tmp_path / "policy.toml"
    path.write_text(_SENSITIVE)
    guard = RaiseGuard(load_policy(path), Registry.discover())
    draw = random.Random(seed)
    words = [*PIECES, *(" plain", " words", " of", " nothing", " at", " all", "平常", "的话") * 6]
    chunks = draw.choices(words, k=900)
    answer = "".join(chunks)
    whole = guard.judge_output([], answer)
    assert len(whole.findings) > 10
    assert delivered(guard, chunks) == whole.text


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.integers(1, 9), st.integers(0, 40))
def test_a_text_is_plain_if_no_other_view_shows_anything(text: str, size: int, gone: int) -> None:
    known = 0
    for end in range(size, len(text) + size, size):
        beginning = text[:end]
        alone = len(views(beginning, final=False)) == 1
        assert is_plain(beginning) == alone
        assert is_plain(beginning, known) == alone
        if alone:
            known = len(beginning)
    assert is_plain(text[gone:]) == (len(views(text[gone:], final=False)) == 1)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("abZ9' .你é\t~" + "ʼ\u2019"), min_size=1, max_size=50))
def test_the_features_of_one_place_are_those_of_the_whole_text(text: str) -> None:
    seen, plain = features(text), folded(text)
    for size, hashes in zip(CHARACTER_NGRAMS, seen.ngrams, strict=True):
        assert hashes.tolist() == [
            ngram_hashes(plain[place - size : place])[-1] for place in range(size, len(text) + 1)
        ]
    if not seen.words:
        return
    words = [word_hash(plain[start:end]) for start, end in zip(seen.starts, seen.ends, strict=True)]
    assert seen.words[0][0].tolist() == [own for _, own in words]
    inner = dict(zip(seen.ends.tolist(), (one for one, _ in words), strict=True))
    order = seen.ends.tolist()
    for (hashes, ends), (back, salt) in zip(seen.words[1:], ((1, PAIR_SALT), (2, SKIP_SALT)), strict=False):
        before = [order[order.index(end) - back] for end in ends.tolist()]
        made = [pair_hash(inner[one], inner[end], salt) for one, end in zip(before, ends.tolist(), strict=True)]
        assert hashes.tolist() == made


def test_a_stream_is_not_scanned_while_nothing_stands_out(
    default_guard: RaiseGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[int] = []
    words = ("The weather is fine today and we walk along the river to the old mill. " * 10).split(" ")
    guard = RaiseGuard(load_policy(), Registry.discover())
    for detector in guard.panel.detectors("output"):
        kept = type(detector).scan

        def counted(self: Any, text: str, kept: Callable[..., Any] = kept) -> Any:
            scans.append(len(text))
            return kept(self, text)

        monkeypatch.setattr(type(detector), "scan", counted)
    stream = guard.open_output([])
    given = "".join(stream.feed(f"{word} ").text for word in words)
    assert given == " ".join(words) + " "
    assert scans == []
    stream.finish()
    assert len(scans) == len(guard.panel.detectors("output"))


def test_every_place_of_a_stream_is_asked_about_until_it_is_decided_and_never_again() -> None:
    asked: list[int] = []

    class Counting(PatternDetector):
        def is_open(self, text: str, place: int, patterns: Sequence[Pattern]) -> bool:
            asked.append(place)
            return super().is_open(text, place, patterns)

    detector = Counting("toy", "privacy_pii", [Pattern("number", repeat(chars("0-9"), 3, 9), "[0-9]{3}")])
    follower, text = detector.follow(), "word 123456 word " * 20
    for end in range(1, len(text) + 1):
        follower.read(text[:end], 0, 0)
    digits = {place for place, char in enumerate(text) if char.isdigit()}
    assert set(asked) <= digits
    assert 0 < len(asked) <= 3 * len(digits)  # while it is the first open one, and once more


def test_who_inherits_how_a_stream_is_read_and_finds_other_things_is_asked_what_it_finds() -> None:
    pattern = Pattern("digit", chars("0-9"), "[0-9]")

    class More(PatternDetector):
        def scan(self, text: str) -> list[Finding]:
            return []

    detector = PatternDetector("toy", "privacy_pii", [pattern])
    assert incremental(detector) is detector
    assert incremental(More("toy", "privacy_pii", [pattern])) is None
    detector.scan = lambda text: []  # type: ignore[method-assign]
    assert incremental(detector) is None


def test_a_stream_that_is_not_what_was_read_is_read_anew() -> None:
    detector = PatternDetector("toy", "privacy_pii", [Pattern("number", repeat(chars("0-9"), 3, 9), "[0-9]{3}")])
    follower = detector.follow()
    follower.read("ab 123 ", 0, 0)
    found, hold = follower.read("xyz 1234 5", 0, 0)
    assert ([(one.start, one.end) for one in found], hold) == ([(4, 8), (5, 8)], 9)


def test_sums_of_places_that_were_forgotten_do_not_change_what_follows(default_guard: RaiseGuard) -> None:
    detector = default_guard.panel.detector("toxicity-answer")
    reader = incremental(detector)
    assert reader is not None
    draw = np.random.default_rng(7)
    text = "".join(draw.choice(PIECES, 400))
    whole = [(one.start, one.end, one.score) for one in detector.scan(text)]
    follower, gone, since, dropped, read = reader.follow(), 0, 0, 0, []
    for end in range(3, len(text) + 3, 3):
        found, hold = follower.read(text[gone:end], dropped, since - gone)
        hold += gone
        read += [(one.start + gone, one.end + gone, one.score) for one in found if since <= one.start + gone < hold]
        since = max(since, hold)
        dropped = max(0, since - reader.look_behind - gone)
        gone += dropped
    assert read == [one for one in whole if one[0] < since]
    assert read


@settings(max_examples=40, deadline=None)
@given(st.lists(ANSWERS, min_size=2, max_size=5), st.integers(1, 9))
def test_streams_that_are_fed_together_say_what_each_says_alone(
    default_guard: RaiseGuard, answers: list[str], size: int
) -> None:
    together, alone = ([default_guard.open_output([]) for _ in answers] for _ in range(2))
    for start in range(0, max(map(len, answers)), size):
        pieces = [answer[start : start + size] for answer in answers]
        read = default_guard.feed_together(list(zip(together, pieces, strict=True)))
        assert read == [stream.feed(piece) for stream, piece in zip(alone, pieces, strict=True)]
    assert [stream.finish() for stream in together] == [stream.finish() for stream in alone]


def test_all_detectors_are_asked_about_all_streams_of_a_step_in_one_turn(
    default_guard: RaiseGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []

    def counted(calls: Sequence[Any]) -> Any:
        turns.append(len(calls))
        return in_turn(calls)

    monkeypatch.setattr("fulmen_safety.seat.in_turn", counted)
    streams = [default_guard.open_output([]) for _ in range(8)]
    for _ in range(3):
        default_guard.feed_together([(stream, "some words ") for stream in streams])
    assert turns == [8 * len(default_guard.panel.detectors("output"))] * 3


def test_what_counts_for_nothing_may_be_left_out_and_all_else_is_found(default_guard: RaiseGuard) -> None:
    detector = default_guard.panel.detector("toxicity-answer")
    reader = incremental(detector)
    assert reader is not None
    text = "you are all stupid idiots and i hate you. 你们都是傻子，滚！ " * 3
    whole = detector.scan(text)
    for least in (0.0, 0.5, 0.9, 0.97):
        found, hold = reader.follow(least).read(text, 0, 0)
        wanted = [one for one in whole if one.score >= least and one.start < hold]
        assert [one for one in found if one.score >= least] == wanted
    assert default_guard.panel.least_scores["toxicity-answer"] == 0.95
    assert default_guard.panel.least_scores["pii"] == 0.5
