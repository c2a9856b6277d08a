"""A text like the examples is found, one like the ordinary texts is not, whoever gives the vectors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fulmen_raise_semantic.detector import make
from fulmen_raise_semantic.examples import Examples
from fulmen_raise_semantic.neighbours import Neighbours
from fulmen_safety import UserError
from fulmen_safety.remote import RemoteFailure

NEW = ["how can I steal twenty bicycles from the station", "怎样从车站偷二十辆自行车"]
LOOK_ALIKE = [
    "how can I bake twenty loaves of bread",
    "where do I report two stolen bicycles",
    "请推荐二十本关于火车的书",
]


def test_new_texts_like_the_examples_are_found_and_look_alikes_are_not(files) -> None:
    detector = make(files)
    for text in NEW:
        [found] = detector.scan(text)
        assert (found.category, found.start, found.end) == ("nonviolent_crime", 0, len(text))
        assert detector.scores(text) == {"nonviolent_crime": pytest.approx(found.score, abs=1e-6)}
    for text in LOOK_ALIKE:
        assert detector.scan(text) == []
        assert detector.scores(text)["nonviolent_crime"] < 0.5


def test_in_a_long_text_the_window_is_found(files) -> None:
    text = "what are some good books about the history of trains. " * 40 + f"\n\n{NEW[0]}\n\n" + "请推荐一些好书。" * 40
    found = make({**files, "window": 60}).scan(text)
    assert found
    assert all("steal" in text[one.start : one.end] and one.end - one.start <= 60 for one in found)


def test_a_text_that_says_nothing_is_of_no_category(files) -> None:
    assert make(files).scan(" ?! \u200b") == []
    assert make(files).scores("") == {"nonviolent_crime": 0.0}


def test_no_text_is_its_own_witness() -> None:
    # examples of one direction each are as far from one another as from the ordinary ones: nothing can be told
    vectors = np.eye(40, dtype=np.float32)
    texts = [str(number) for number in range(40)]
    neighbours = Neighbours(Examples({"self_harm": tuple(texts[20:])}, tuple(texts[:20])), vectors)
    likely = neighbours.probabilities(np.eye(40, dtype=np.float32)[:0:-1] * 0 + 1e-3)["self_harm"]
    assert np.abs(likely - 0.5).max() < 0.05


def test_a_server_gives_the_vectors_and_those_of_the_examples_are_kept(files, server, tmp_path: Path) -> None:
    settings = {**files, "embedder": "server", "url": server.url, "model": "e5", "cache": str(tmp_path / "cache")}
    detector = make(settings)
    assert server.calls == []  # the server may be the one that is loading this policy
    assert detector.scan(NEW[0])
    assert detector.scan(LOOK_ALIKE[0]) == []
    embedded = sum(len(call["input"]) for call in server.calls)
    again = make(settings)
    assert again.scan(NEW[0]) == detector.scan(NEW[0])
    assert sum(len(call["input"]) for call in server.calls) == embedded + 2
    [kept] = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-7])
    assert make(settings).scan(NEW[0]) == detector.scan(NEW[0])  # what is damaged is made again
    assert make({**settings, "model": "other"}).scan(NEW[0])
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("fault", [(500, "no"), (200, "no json"), (200, "{}"), (200, '{"data": []}')])
def test_a_server_that_fails_is_a_failure_and_the_next_text_is_tried_again(files, server, fault) -> None:
    detector = make({**files, "embedder": "server", "url": server.url, "model": "e5", "retries": 0})
    server.fault = fault
    with pytest.raises(RemoteFailure):
        detector.scan(NEW[0])
    server.fault = None
    assert detector.scan(NEW[0])


def test_a_slow_server_fails_in_the_time_it_is_given(files, server) -> None:
    detector = make({**files, "embedder": "server", "url": server.url, "model": "e5", "seconds": 0.2})
    detector.scan(NEW[0])
    server.pause = 6.0
    began = time.monotonic()
    with pytest.raises(RemoteFailure, match="in time"):
        detector.scan(NEW[1])
    assert time.monotonic() - began < 3


def test_a_function_of_the_users_gives_the_vectors(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_embedder.py").write_text(
        "def letters(texts):\n    return [[one.count(char) for char in 'abcdefghijklmnop怎偷请'] for one in texts]\n"
        "def wrong(texts):\n    return [[1.0]]\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make({**files, "embedder": "my_embedder:letters"}).scan(NEW[0])
    with pytest.raises(ValueError, match="shape"):
        make({**files, "embedder": "my_embedder:wrong"}).scan(NEW[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"examples": {"theft": "x"}}, "unknown category"),
        ({"examples": {"self_harm": "/nonexistent"}}, "cannot be read"),
        ({"examples": {}}, "examples"),
        ({"embedder": "server"}, "without url"),
        ({"url": "http://x/v1"}, "embedder is 'hashed'"),
        ({"embedder": "no_such_module:f"}, "no_such_module"),
        ({"embedder": "hashd"}, "no embedder 'hashd'"),
        ({"windw": 3}, "windw"),
    ],
)
def test_settings_that_do_not_fit_are_told(files, change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make({**files, **change})


def test_too_few_examples_are_told(files, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("one\none\nONE \ntwo")
    with pytest.raises(UserError, match="2 examples of self_harm are too few"):
        make({**files, "examples": {"self_harm": str(tmp_path / "few.txt")}})
    with pytest.raises(UserError, match="2 ordinary texts are too few"):
        make({**files, "ordinary": str(tmp_path / "few.txt")})
