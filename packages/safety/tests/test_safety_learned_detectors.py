"""Detectors made of a learned model: whole texts by their worst stretch, streams by both laws."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fulmen_safety.conformance import faults
from fulmen_safety.detector import PlainReader, Scorer
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.features import features
from fulmen_safety.learned.linear_model import NO_CATEGORIES, LinearModel
from fulmen_safety.learned.prefix_detector import PrefixDetector
from fulmen_safety.learned.window_detector import WindowDetector, stretches, worst_stretch

TEXTS = st.text(alphabet="ab Z9'.\n你好，世", max_size=70)
CURVE = Curve(slope=1.0, offset=0.0, slope_interval=(1.0, 1.0), offset_interval=(0.0, 0.0), examples=0)


def random_model(seed: int, *, window: int = 30, categories: tuple[str, ...] = ("violent_crime",)) -> LinearModel:
    """Return a model of random weights, spiteful to any text."""
    random = np.random.default_rng(seed)
    heads = 1 if len(categories) == 1 else 1 + len(categories)
    weights = random.integers(-127, 128, 1 << 12).astype(np.int8)
    of_categories = random.integers(-127, 128, (1 << 9, heads - 1)).astype(np.int8)
    scale, bias = np.full(heads, 0.01, np.float32), np.full(heads, 0.3, np.float32)
    return LinearModel(weights, of_categories, scale, bias, categories, {"*": CURVE, "zh": CURVE}, window)


def word_model(weights: dict[str, int], *, window: int = 40) -> LinearModel:
    """Return a model in which these words alone count: 127 says unsafe, -127 safe."""
    table = np.zeros(1 << 18, np.int8)
    for word, weight in weights.items():
        table[features(word).words[0][0] >> np.uint32(14)] = weight
    ones = np.ones(1, np.float32)
    return LinearModel(table, NO_CATEGORIES, ones, -ones, ("violent_crime",), {"*": CURVE}, window)


TWO = ("hate_discrimination", "violent_crime")


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 5))
def test_a_stream_keeps_both_laws_whatever_the_weights(text: str, seed: int) -> None:
    detector = PrefixDetector("d", random_model(seed, categories=TWO), floor=0.5, window=5)
    assert faults(detector, text, categories=TWO) == []


@settings(max_examples=2, deadline=None)
@example(["好", "ab"] * 6 + ["a" * 40] * 6 + ["Z9", "ab", "好", "ab"] * 5, 1)  # no word, further than is remembered
@given(
    st.lists(st.sampled_from(["ab", "Z9", "你", "a" * 40, "好", ".", "\n"]), min_size=60, max_size=80),
    st.integers(0, 5),
)
def test_a_stream_keeps_both_laws_beyond_what_it_may_forget(words: list[str], seed: int) -> None:
    detector = PrefixDetector("d", random_model(seed), floor=0.5, window=5)
    assert faults(detector, " ".join(words), categories=("violent_crime",)) == []


def test_a_word_far_behind_the_one_before_is_judged_as_if_there_were_none_in_a_stream_too() -> None:
    detector = PrefixDetector("d", word_model({"kill": 127}), floor=0.5)
    before = "and so it goes on " * 20 + "kill kill kill "
    near, far = (f"{before}{'a' * length} kill it" for length in (40, 70))
    assert [one.start for one in detector.scan(near) if one.start >= len(before)] == []  # it is less than before
    assert [one.start for one in detector.scan(far) if one.start >= len(before)] == [far.rindex("kill")]
    for text in (near, far):
        assert faults(detector, text, categories=("violent_crime",)) == []


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 5), st.floats(0.5, 0.99))
def test_no_threshold_is_crossed_without_a_finding(text: str, seed: int, threshold: float) -> None:
    detector = PrefixDetector("d", random_model(seed), floor=0.5)
    highest = detector.scores(text)["violent_crime"]
    found = max((one.score for one in detector.scan(text)), default=0.0)
    assert found == (highest if highest >= 0.5 else 0.0)
    assert (highest >= threshold) == any(one.score >= threshold for one in detector.scan(text))


def test_only_the_word_being_written_is_held() -> None:
    detector = PrefixDetector("d", word_model({"kill": 127}), floor=0.5)
    assert [detector.hold_from(text) for text in ("", "how to ki", "how to kill ", "怎么", "怎么 ki")] == [
        0,
        7,
        12,
        2,
        3,
    ]
    assert [(one.start, one.end) for one in detector.scan("how to kill him")] == [(7, 11)]


def test_sums_are_those_of_the_features_one_by_one() -> None:
    model, text = random_model(1, categories=TWO), "How do I kill 3 processes? 怎么办。"
    seen = features(text)
    unsafe = model.weights_B[seen.hashes() >> np.uint32(20)].sum(dtype=np.int64)
    of_categories = model.weights_AC[seen.hashes() >> np.uint32(23)].sum(0, dtype=np.int64)
    assert model.sums(seen)[-1].tolist() == [unsafe, *of_categories.tolist()]


@given(st.text(alphabet="ab .!?\n。你", max_size=300))
def test_stretches_cover_a_text_and_fit_the_window(text: str) -> None:
    starts, ends = stretches(text, 40)
    assert np.all(ends - starts <= 40)
    if text:
        covered = {at for start, end in zip(starts, ends, strict=True) for at in range(start, end)}
        assert covered == set(range(len(text)))


def test_a_bad_sentence_counts_as_much_in_a_long_text_as_alone() -> None:
    detector = WindowDetector("d", word_model({"kill": 127}), floor=0.5)
    bad = "Tell me how to kill him."
    filler = "The weather is fine today, thank you. " * 20
    alone, inside = detector.scores(bad), detector.scores(filler + bad + " " + filler)
    assert inside["violent_crime"] == pytest.approx(alone["violent_crime"], abs=0.05)
    finding = detector.scan(filler + bad + " " + filler)[0]
    assert "kill" in (filler + bad)[finding.start : finding.end]
    assert finding.end - finding.start <= 40


def test_the_likeliest_category_has_the_probability_of_being_unsafe_at_all() -> None:
    model = random_model(3, categories=TWO)
    detector = WindowDetector("d", model, floor=0.01)
    assert isinstance(detector, Scorer)
    assert isinstance(detector, PlainReader)
    assert not detector.reads_plain
    worst = worst_stretch(model, "kill them all")
    assert worst is not None
    scores = detector.scores("kill them all")
    assert max(scores.values()) == pytest.approx(model.probability("kill them all", worst.margin))
    assert {one.category: one.score for one in detector.scan("kill them all")} == pytest.approx(scores)


@settings(max_examples=60, deadline=None)
@given(TEXTS.filter(bool), st.integers(0, 5), st.data())
def test_the_sum_of_a_stretch_is_the_difference_of_sums(text: str, seed: int, data: st.DataObject) -> None:
    model = random_model(seed, categories=TWO)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    sums = model.sums(features(text))
    assert model.sum(features(text), start, end).tolist() == (sums[end] - sums[start]).tolist()
    assert (model.unsafe_alone().sums(features(text)) == sums[:, :1]).all()


def test_an_empty_text_is_nothing() -> None:
    detector = WindowDetector("d", random_model(0), floor=0.01)
    assert (list(detector.scan("")), detector.scores("")) == ([], {"violent_crime": 0.0})
    stream = PrefixDetector("d", random_model(0), floor=0.01)
    assert (list(stream.scan("...")), stream.scores("...")) == ([], {"violent_crime": 0.0})


def test_time_grows_in_proportion_to_the_text() -> None:
    detector = WindowDetector("d", random_model(0, window=600), floor=0.5)

    def seconds(text: str) -> float:
        began = time.perf_counter()
        detector.scan(text)
        return time.perf_counter() - began

    short = min(seconds("a word or two. " * 2000 + str(one)) for one in range(3))
    long = min(seconds("a word or two. " * 16000 + str(one)) for one in range(3))
    assert long < 8 * 4 * short
