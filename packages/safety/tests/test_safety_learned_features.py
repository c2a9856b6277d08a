"""What a learned detector sees: the same features wherever a stretch stands, and nothing without bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fulmen_safety.learned.features import LONGEST_WORD, REACH, features, units

TEXTS = st.text(alphabet="ab Z9'.,\n你好，世😀éΣ", max_size=60)


def _placed(text: str) -> set[tuple[int, int, int]]:
    """Every feature as kind, place of its end, hash."""
    seen = features(text)
    found = {
        (kind, at + kind + 1, int(one)) for kind, hashes in enumerate(seen.ngrams) for at, one in enumerate(hashes)
    }
    return found | {
        (10 + kind, int(end), int(one))
        for kind, (hashes, ends) in enumerate(seen.words)
        for one, end in zip(hashes, ends, strict=True)
    }


@given(TEXTS, TEXTS)
def test_a_feature_does_not_depend_on_where_it_stands(before: str, text: str) -> None:
    shifted = {(kind, end - len(before) - 1, one) for kind, end, one in _placed(before + "." + text)}
    assert {one for one in _placed(text) if one[0] < 5} <= shifted
    assert {one for one in _placed(text) if one[0] >= 10} <= shifted


@given(TEXTS, TEXTS)
def test_what_is_seen_of_a_beginning_changes_in_its_last_word_alone(text: str, more: str) -> None:
    settled = len(text) - LONGEST_WORD - 1
    whole = {one for one in _placed(text + more) if one[1] <= settled}
    assert whole == {one for one in _placed(text) if one[1] <= settled}


@given(TEXTS, TEXTS)
def test_a_feature_hangs_on_a_bounded_stretch_before_its_end(before: str, text: str) -> None:
    text = text + "x" * REACH + " " + text
    far = {one for one in _placed(before + text) if one[1] > len(before) + REACH}
    alone = {(kind, end + len(before), one) for kind, end, one in _placed(text) if end > REACH}
    assert far == alone


def test_case_and_digits_do_not_count_and_words_do() -> None:
    assert _placed("Call 119 NOW") == _placed("call 000 now")
    assert _placed("call 0000 now") != _placed("call 000 now")
    kill, skill = features("kill").words[0][0], features("skill").words[0][0]
    assert kill[0] != skill[0]
    assert features("a " + "x" * (LONGEST_WORD + 1)).starts.tolist() == [0]


def test_counts_are_of_features_ended() -> None:
    seen = features("kill a process")
    assert seen.counts()[-1] == len(seen.hashes())
    assert np.all(np.diff(seen.counts()) >= 0)


def test_each_ideograph_is_a_word_of_its_own() -> None:
    starts, ends = units("你好 world！")
    assert [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)] == [(0, 1), (1, 2), (3, 8), (8, 9)]
