"""The judge over HTTP: what it says becomes findings, and whatever goes wrong becomes a failure in time."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from fulmen_raise_judge.detector import make, make_answer
from fulmen_raise_judge.verdict import Malformed
from fulmen_safety import UserError
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy
from fulmen_safety.remote import RemoteFailure
from fulmen_testing.detector.trial import OneDetector


def settings(server, **more):
    return {"url": server.url, "model": "guard", **more}


def guard(server, *, on_error="closed", **more):
    import fulmen_raise_judge.plugin as plugin

    info = plugin.fulmen_raise_detectors()[0]
    entry = {"name": "judge", "on_error": on_error, "settings": settings(server, **more)}
    default = {
        "threshold": 0.5,
        "corpus": "drop",
        "reward": 1.0,
        "input": "block",
        "output": "stop",
        "message": {"en": "blocked"},
    }
    table = {
        "name": "t",
        "version": "1",
        "taxonomy": "1.1",
        "failure": {"en": "could not be checked"},
        "detectors": [entry],
        "categories": {"default": default},
    }
    policy = make_policy(table, where="the test's policy", folder=Path.cwd())
    return RaiseGuard(policy, OneDetector(info, lambda: make(entry["settings"])))


def test_what_the_judge_finds_unsafe_is_a_finding_over_the_text(server) -> None:
    server.answer = lambda text: "unsafe\nS1,S10"
    [first, second] = make(settings(server)).scan("an attack")
    assert (first.category, first.start, first.end, first.score) == ("violent_crime", 0, 9, 1.0)
    assert second.category == "hate_discrimination"
    assert make(settings(server, categories=["hate_discrimination"])).scan("an attack") == [second]
    assert make(settings(server)).scan("  \n ") == []


def test_the_score_is_the_probability_of_the_verdict(server) -> None:
    server.answer = lambda text: "unsafe\nS9"
    server.likely = [("unsafe", {"unsafe": 0.6, "safe": 0.2}), ("\n", {"\n": 1.0}), ("S9", {"S9": 1.0})]
    [found] = make(settings(server)).scan("x")
    assert found.score == pytest.approx(0.75)
    [unknown] = make(settings(server, logprobs=False)).scan("x")
    assert unknown.score == 1.0
    assert "logprobs" not in server.calls[-1]


def test_qwen3guards_middle_level_counts_for_as_much_as_the_policy_says(server) -> None:
    server.answer = lambda text: "Safety: Controversial\nCategories: Jailbreak"
    [found] = make(settings(server, style="qwen3guard", controversial=0.3)).scan("x")
    assert (found.category, found.score) == ("prompt_attack", 0.3)
    assert server.calls[-1]["messages"] == [{"role": "user", "content": "x"}]  # its own template does the asking


def test_an_answer_is_judged_with_the_question_that_it_answers(server) -> None:
    detector = make_answer(settings(server, style="llama-guard"))
    detector.scan("a")
    assert [turn["role"] for turn in server.calls[-1]["messages"]] == ["user", "assistant"]
    talk = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
    ]
    detector.in_context(talk).scan("a2")
    assert [turn["content"] for turn in server.calls[-1]["messages"]] == ["q1", "a1", "q2", "a2"]


def test_the_categories_of_the_policy_are_what_is_asked_about(server) -> None:
    wanted = {"categories": ["self_harm", "violent_crime"], "descriptions": {"self_harm": "talk of harming oneself"}}
    make(settings(server, **wanted)).scan("x")
    said = server.calls[-1]["messages"][0]["content"]
    listed = said.split("<BEGIN CATEGORIES>\n")[1].split("\n<END")[0].split("\n")
    assert [line.split(":")[0] for line in listed] == ["S1", "S11"]
    assert listed[1] == "S11: talk of harming oneself."


def test_a_long_text_is_judged_in_windows(server) -> None:
    text = "nothing at all. " * 60 + "an attack. " + "nothing at all. " * 60
    found = make(settings(server, window=300)).scan(text)
    assert len(server.calls) > 5
    assert found
    assert all("attack" in text[one.start : one.end] and one.end - one.start <= 300 for one in found)


@pytest.mark.parametrize(
    "answer", ["", "I cannot answer that.", "unsafe", "unsafe\nS99", "Safety: Safe\nCategories: None"]
)
def test_an_answer_that_is_no_verdict_is_a_failure(server, answer: str) -> None:
    server.answer = lambda text: answer
    with pytest.raises(Malformed):
        make(settings(server)).scan("x")


@pytest.mark.parametrize(
    "raw",
    [
        "no json",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": [{"message": {"content": "safe"}, "finish_reason": "length"}]}',
        json.dumps({"choices": [{"message": {"content": "safe"}, "logprobs": {"content": [{"token": "safe"}]}}]}),
    ],
)
def test_what_is_no_chat_completion_is_a_failure(server, raw: str) -> None:
    server.raw = raw
    with pytest.raises((Malformed, RemoteFailure)):
        make(settings(server)).scan("x")


def test_a_busy_server_is_asked_again_but_not_for_ever(server) -> None:
    server.statuses = [503]
    assert make(settings(server, retries=1)).scan("x") == []
    assert len(server.calls) == 2
    server.statuses = [503] * 9
    with pytest.raises(RemoteFailure, match="answered 503"):
        make(settings(server, retries=2)).scan("x")
    assert len(server.calls) == 5
    server.statuses = [401]
    with pytest.raises(RemoteFailure, match="answered 401"):  # a wrong key is not mended by waiting
        make(settings(server, retries=2)).scan("x")
    assert len(server.calls) == 6


@pytest.mark.parametrize("slow", ["pause", "drip"])
def test_a_slow_server_fails_within_the_time_it_is_given(server, slow: str) -> None:
    setattr(server, slow, 6.0 if slow == "pause" else 0.05)
    began = time.monotonic()
    with pytest.raises(RemoteFailure, match="in time"):
        make(settings(server, seconds=0.2, retries=3)).scan("x")
    assert time.monotonic() - began < 3  # far from 6, and from 0.05 for each byte, however busy the machine is


def test_a_server_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(RemoteFailure, match="cannot be reached"):
        make({"url": "http://127.0.0.1:9/v1", "model": "m", "seconds": 1}).scan("x")


@pytest.mark.parametrize(("on_error", "action", "kept"), [("closed", "block", "quarantine"), ("open", "allow", "keep")])
def test_a_failure_does_what_the_policy_says(server, on_error: str, action: str, kept: str) -> None:
    made = guard(server, on_error=on_error)
    assert made.judge_input([{"role": "user", "content": "hello"}]).action == "allow"
    blocked = made.judge_input([{"role": "user", "content": "an attack"}])
    assert (blocked.action, blocked.category) == ("block", "violent_crime")
    server.answer = lambda text: "Sure! Here is a poem."
    failed = made.judge_input([{"role": "user", "content": "hello"}])
    assert failed.action == action
    assert made.judge_document("hello").action == kept


def test_the_key_is_sent_and_told_nowhere(server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text("sk-very-secret\nnot this\n")
    server.statuses = [401]
    with caplog.at_level(logging.DEBUG), pytest.raises(RemoteFailure) as failure:
        make(settings(server, key_file=str(file))).scan("x")
    assert server.keys == ["Bearer sk-very-secret"]
    assert "very-secret" not in str(failure.value) + caplog.text
    with pytest.raises(UserError, match="user name or a password") as refused:
        make({"url": "http://me:sk-very-secret@host/v1", "model": "m"})
    assert "very-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "file:///etc"}, "no URL"),
        ({"catagories": ["hate"]}, "catagories"),
        ({"categories": ["hate"]}, "unknown category"),
        ({"categories": ["low_quality"]}, "no code"),
        ({"seconds": 0}, "seconds"),
        ({"key_file": "/nonexistent/key"}, "key file"),
    ],
)
def test_settings_that_do_not_fit_are_told(server, change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(settings(server) | change)
