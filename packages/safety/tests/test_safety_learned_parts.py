"""Windows, logistic regression and JSON Lines, on which detectors that learn or ask are built."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen_safety import UserError
from fulmen_safety.jsonl import read_rows, text_of
from fulmen_safety.logistic import fit_logistic, sigmoid
from fulmen_safety.windows import windows


@given(st.text("ab 。.\n", max_size=300), st.integers(10, 60), st.integers(0, 4))
def test_windows_are_short_overlap_and_leave_nothing_out(text: str, size: int, overlap: int) -> None:
    found = windows(text, size, overlap)
    assert all(0 < end - start <= size for start, end in found)
    covered = {place for start, end in found for place in range(start, end)}
    assert all(place in covered or text[place].isspace() for place in range(len(text)))
    for place in range(len(text) - overlap):  # what is no longer than the overlap lies in one window as a whole
        piece = text[place : place + overlap]
        assert not piece.strip() or any(start <= place and place + overlap <= end for start, end in found)


def test_a_window_ends_where_a_reader_would_pause() -> None:
    text = "One sentence here. Another one there. And a third that goes on"
    assert [text[start:end] for start, end in windows(text, 40)] == [
        "One sentence here. Another one there.",
        " And a third that goes on",
    ]
    assert windows("x" * 25, 10) == [(0, 10), (10, 20), (20, 25)]
    assert windows("  \n ", 10) == []
    with pytest.raises(ValueError, match="overlap"):
        windows("x", 10, 5)


def test_logistic_regression_is_at_the_minimum_of_its_loss() -> None:
    source = np.random.default_rng()
    features = source.normal(size=(80, 3))
    positive = features @ [1.0, -2.0, 0.5] + source.normal(size=80) > 0.4
    weights, bias = fit_logistic(features, positive, 1e-2)
    count, rest = positive.sum(), (~positive).sum()
    share = np.where(positive, 0.5 / count, 0.5 / rest)
    target = np.where(positive, 1 - 1 / (count + 2), 1 / (rest + 2))
    error = share * (sigmoid(features @ weights + bias) - target)
    np.testing.assert_allclose(features.T @ error + 1e-2 * weights, 0, atol=1e-6)
    assert error.sum() == pytest.approx(0, abs=1e-6)


def test_separable_and_constant_features_give_finite_weights_and_one_class_is_refused() -> None:
    features = np.array([[0.0, 1.0], [0.1, 1.0], [0.9, 1.0], [1.0, 1.0]])
    weights, bias = fit_logistic(features, np.array([False, False, True, True]), 0.0)
    assert np.isfinite([*weights, bias]).all()
    assert sigmoid(features @ weights + bias)[[0, -1]].round(2).tolist() == pytest.approx([0.25, 0.75], abs=0.06)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        fit_logistic(features, np.ones(4, bool), 0.0)


def test_rows_are_read_from_plain_and_gzipped_files(tmp_path: Path) -> None:
    data = '{"text": "一"}\n\n{"prompt": "b", "label": "safe"}\n{"messages": [{"role": "user", "content": "c"}]}\n'
    (tmp_path / "a.jsonl").write_text(data, "utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data.encode()))
    for name in ("a.jsonl", "a.jsonl.gz"):
        found = [(place.rpartition(":")[2], text_of(row, place)) for place, row in read_rows(tmp_path / name)]
        assert found == [("1", "一"), ("3", "b"), ("4", "c")]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": 1}\n', "no text"),
        ("a.jsonl", b"[1]\n", "a list, not an object"),
        ("a.jsonl", b'{"text": "\xff"}\n', "invalid UTF-8 at byte 10"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0)[:-6], "gzip data is cut short or damaged"),
        ("a.jsonl.gz", b"plain", "no JSON"),
    ],
)
def test_faults_name_the_file_and_the_line(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words) as told:
        [text_of(row, place) for place, row in read_rows(tmp_path / name)]
    assert name in str(told.value)
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path / "absent.jsonl"))


def test_a_row_that_counts_twice_is_as_two_rows() -> None:
    chance = np.random.default_rng(0)
    features, positive = chance.normal(size=(60, 2)), chance.random(60) < 0.4
    times = chance.integers(1, 4, 60)
    weights, bias = fit_logistic(features, positive, 0.1, times.astype(np.float64))
    twice, also = fit_logistic(np.repeat(features, times, 0), np.repeat(positive, times), 0.1)
    # the targets are smoothed by the number of rows, of which there are more
    assert weights == pytest.approx(twice, abs=0.05)
    assert bias == pytest.approx(also, abs=0.05)
