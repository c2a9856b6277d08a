"""Claims about a guard in a process of its own: it says what the guard says, and its death ends one answer at most."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from fulmen_core.errors import UserError
from fulmen_core.registry import Discovery
from fulmen_serving.guarding.guard_process import GuardLost, GuardProcess
from fulmen_serving.processes.restart_policy import RestartPolicy

PLUGIN = Path(__file__).with_name("brittle_guard.py")
PLUGINS = Discovery(disabled=("fulmen-safety",), files=(PLUGIN,))


@contextlib.contextmanager
def running(**options):
    guard = GuardProcess(None, PLUGINS, **options)
    try:
        guard.start()
        yield guard
    finally:
        guard.close()
    assert guard.pid is None


@pytest.fixture
def here():
    """The same guard in this process."""
    spec = importlib.util.spec_from_file_location("brittle_guard", PLUGIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BrittleGuard()


def chunks_of(text):
    while text:
        size = random.randint(1, 6)
        yield text[:size]
        text = text[size:]


def read(stream, chunks, kill=None):
    """The text, the findings and the category of a whole answer; `kill` is called after some pieces."""
    text, findings, category = "", [], ""
    for index, piece in enumerate([*chunks, None]):
        if kill is not None and index in (3, 7):
            kill()
        chunk = stream.finish() if piece is None else stream.feed(piece)
        text += chunk.text
        findings += [finding.start for finding in chunk.findings]
        category = category or chunk.category
        if chunk.stop:
            break
    return text, findings, category


def answer_of(length=80):
    return "".join(random.choice("abc 123") for _ in range(length))


def test_it_says_what_the_guard_says(here):
    with running() as guard:
        assert (guard.name, guard.policy_version) == ("raise", "brittle-1")
        messages = [{"role": "user", "content": "hello"}]
        assert guard.judge_input(messages) == here.judge_input(messages)
        assert guard.crosswalk("openai") == here.crosswalk("openai")
        with pytest.raises(ValueError, match="no reward here"):
            guard.reward_penalty("a", "b")
        for text in (answer_of(), answer_of() + "stop!" + answer_of(), ""):
            chunks = list(chunks_of(text))
            assert read(guard.open_output(messages), chunks) == read(here.open_output(messages), chunks)


def test_answers_go_on_in_the_next_process_and_nothing_is_delivered_twice(here):
    with running() as guard:
        texts = [answer_of() + "stop!" * (index % 2) for index in range(6)]
        streams = [guard.open_output([]) for _ in texts]
        before = [stream.feed(text[:20]).text for stream, text in zip(streams, texts, strict=True)]
        os.kill(guard.pid, signal.SIGKILL)
        for stream, text, first in zip(streams, texts, before, strict=True):
            rest = read(stream, list(chunks_of(text[20:])))
            whole = read(here.open_output([]), [text])
            assert (first + rest[0], rest[2]) == (whole[0], whole[2])
        assert guard.deaths == 1


def test_an_answer_survives_deaths_at_any_place_with_each_finding_once(here):
    with running() as guard:
        text = answer_of()
        got = read(guard.open_output([]), list(chunks_of(text)), lambda: os.kill(guard.pid, signal.SIGKILL))
        assert got == read(here.open_output([]), [text])
        assert guard.deaths == 2


def test_what_kills_it_fails_alone():
    with running() as guard:
        good, bad = guard.open_output([]), guard.open_output([])
        good.feed("abc")
        with pytest.raises(GuardLost, match="the guard's process died: it was killed by SIGKILL"):
            bad.feed("now die! of it")
        assert good.feed("defgh").text == "abcd"
        with pytest.raises(GuardLost):
            guard.judge_input([{"role": "user", "content": "die!"}])
        assert guard.judge_input([{"role": "user", "content": "well"}]).action == "allow"
        assert good.finish().text == "efgh"


def told(chunks):
    return [chunk if isinstance(chunk, Exception) else chunk.text for chunk in chunks]


def test_several_answers_are_read_at_once_as_each_alone(here):
    with running() as guard:
        texts = [answer_of() + "stop!" * (index % 2) for index in range(5)]
        together, alone = ([one.open_output([]) for _ in texts] for one in (guard, here))
        for start in range(0, 90, 6):
            pieces = [text[start : start + 6] for text in texts]
            read = guard.feed_together(list(zip(together, pieces, strict=True)))
            assert read == [stream.feed(piece) for stream, piece in zip(alone, pieces, strict=True)]
            if start == 30:
                os.kill(guard.pid, signal.SIGKILL)
        assert [stream.finish() for stream in together] == [stream.finish() for stream in alone]


def test_of_several_answers_read_at_once_the_one_that_kills_it_fails_alone():
    with running() as guard:
        good, bad, late = (guard.open_output([]) for _ in range(3))
        assert told(guard.feed_together([(good, "abcdef"), (bad, "now di")])) == ["ab", "no"]
        first, lost, second = told(guard.feed_together([(good, "ghi"), (bad, "e! of it"), (late, "12345")]))
        assert (first, second) == ("cde", "#")
        assert isinstance(lost, GuardLost)
        assert good.finish().text == "fghi"


def test_one_that_hangs_is_killed():
    with running(patience=0.3) as guard:
        with pytest.raises(GuardLost, match=r"it gave no answer within 0\.3 s"):
            guard.open_output([]).feed("hang!")
        assert guard.open_output([]).feed("abcde").text == "a"


def test_one_that_dies_too_often_fails_closed_for_good():
    with running(restarts=RestartPolicy(crashes=2, delays=(0.0,))) as guard:
        with pytest.raises(GuardLost, match="too often to be started again"):
            guard.judge_input([{"role": "user", "content": "die!"}])
        with pytest.raises(GuardLost, match="too often"):
            guard.judge_input([{"role": "user", "content": "well"}])


def test_judging_and_reading_do_not_wait_for_each_other():
    with running(patience=1) as guard:

        def judge():
            with contextlib.suppress(GuardLost):
                guard.judge_input([{"content": "hang!"}])

        hung = threading.Thread(target=judge)
        hung.start()
        stream = guard.open_output([])
        assert stream.feed("abcde").text == "a"
        assert hung.is_alive()
        hung.join(10)
        assert stream.feed("fghi").text == "bcde"


def test_a_policy_that_cannot_be_loaded_is_said_in_its_sentence(tmp_path):
    guard = GuardProcess(tmp_path / "nowhere.toml", PLUGINS)
    with pytest.raises(UserError, match="there is no policy file"):
        guard.start()
    guard.close()
