"""`fulmen conform` as a user meets it: the scorecard, exit codes, plugins that are broken, kill a process, or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAD = """
from fulmen_core.descriptors import Availability, BackendInfo, DetectorInfo
from fulmen_core.guard import Finding
from fulmen_core.hooks import hookimpl
"""

DETECTOR = (
    HEAD
    + """
class Digits:
    name = "digits"

    def scan(self, text):
        {act}
        return [Finding("digits", "ip_secrets", 1.0, i, i + 1, "digit") for i, char in enumerate(text) if char == "1"]

def make(settings):
    if settings:
        from fulmen_core.errors import UserError
        raise UserError(f"unknown setting {{sorted(settings)[0]!r}}")
    return Digits()

@hookimpl
def fulmen_raise_detectors():
    return [DetectorInfo("digits", "ones", ("corpus", "input", "output"), ("ip_secrets",), ("en",), "rules", make)]
"""
)


def conform(plugin: Path | None, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with a plugin file."""
    given = [] if plugin is None else ["--plugin", str(plugin)]
    order = [sys.executable, "-P", "-m", "fulmen_core", *given, "conform", *words]
    return subprocess.run(order, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A sound detector in a single file."""
    return written(tmp_path, "pass")


def written(folder: Path, act: str) -> Path:
    file = folder / "digits.py"
    file.write_text(DETECTOR.format(act=act), encoding="utf-8")
    return file


def claims(rows: list[dict[str, Any]]) -> set[str]:
    return {row["claim"] for row in rows}


def test_a_sound_detector_gets_a_scorecard_and_exit_code_0(digits: Path) -> None:
    done = conform(digits, "detector", "digits", "--json", "--example", "a 1", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads(done.stdout)
    assert card["failed"] == []
    assert (card["kind"], card["name"], card["seed"]) == ("detector", "digits", 7)
    assert "test_a_stream_delivers_what_the_whole_answer_would[redact]" in claims(card["passed"])
    assert all(row["reason"] for row in card["skipped"])
    assert "test_the_two_laws_of_streaming_hold" in claims(card["skipped"])
    assert all(row["seconds"] >= 0 and row["title"] for row in card["passed"])


def test_a_claim_that_fails_is_named_with_its_reason_and_exit_code_1(digits: Path) -> None:
    done = conform(
        digits, "detector", "digits", "--example", "no such thing", "--claim", "test_it_finds", "--traceback"
    )
    assert done.returncode == 1
    assert done.stdout.startswith("failed")
    assert "It finds something in every example" in done.stdout
    assert "no such thing" in done.stdout
    assert "detector digits" in done.stdout.splitlines()[-1]
    assert "0 passed, 1 failed, 0 skipped" in done.stdout.splitlines()[-1]
    assert "--- test_it_finds_what_it_is_for" in done.stderr


def test_a_claim_that_kills_its_process_fails_and_those_after_it_are_tried(tmp_path: Path) -> None:
    plugin = written(tmp_path, "import os; '\\x00' in text and os.abort()")
    card = json.loads(conform(plugin, "detector", "digits", "--json").stdout)
    reasons = {row["claim"]: row["reason"] for row in card["failed"]}
    assert reasons["test_strange_characters_do_not_break_it"] == "it killed its process with SIGABRT"
    assert "test_when_it_raises_the_policy_decides[closed]" in claims(card["passed"])
    assert len({*claims(card["passed"]), *claims(card["failed"]), *claims(card["skipped"])}) >= 20


def test_a_claim_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    plugin = written(tmp_path, "import time; '\\x00' in text and time.sleep(60)")
    words = ["--claim", "strange", "--claim", "misspelt", "--claim", "not_know", "--patience", "4", "--json"]
    card = json.loads(conform(plugin, "detector", "digits", *words).stdout)
    (failed,) = card["failed"]
    assert failed["reason"].startswith("it did not end within 4 s")
    assert claims(card["passed"]) == {"test_a_setting_it_does_not_know_is_refused"}


@pytest.mark.parametrize(
    ("source", "words", "sentence"),
    [
        ("", ["detector", "nonesuch"], "unknown detector 'nonesuch'"),
        ("", ["backend", "nonesuch"], "unknown backend 'nonesuch'"),
        ("1 / 0", ["detector", "digits"], "its import raised ZeroDivisionError"),
        ("raise SystemExit(3)", ["detector", "digits"], "its import raised SystemExit: 3"),
        (HEAD + "@hookimpl\ndef fulmen_backend(): return []", ["backend", "acme"], "did you mean fulmen_backends?"),
        ("", ["tokenizer", "bpe"], "invalid choice"),
        ("", ["detector", "pii", "--settings", "{"], "is no JSON object in --settings"),
    ],
)
def test_what_is_not_there_or_cannot_be_loaded_is_one_sentence_and_exit_code_2(
    tmp_path: Path, source: str, words: list[str], sentence: str
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(source, encoding="utf-8")
    done = conform(plugin if source else None, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_claims_about_what_is_unavailable_are_skipped_unless_it_is_required(tmp_path: Path) -> None:
    plugin = tmp_path / "chip.py"
    plugin.write_text(
        HEAD
        + """
@hookimpl
def fulmen_backends():
    return [BackendInfo("chip", "", lambda: Availability(False, "there is no chip here"), "json:dumps")]
"""
    )
    words = ["backend", "chip", "--json", "--claim", "greedy", "--claim", "unavailable"]
    done = conform(plugin, *words)
    assert done.returncode == 0
    card = json.loads(done.stdout)
    assert [(row["claim"], row["reason"]) for row in card["skipped"]] == [
        ("test_greedy_tokens", "there is no chip here")
    ]
    assert claims(card["passed"]) == {"test_an_unavailable_backend_is_refused_with_its_reason"}
    done = conform(plugin, *words, FULMEN_REQUIRE="chip")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"][0]["reason"].endswith("which is unavailable: there is no chip here")


def test_what_lies_in_the_current_folder_changes_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text("raise RuntimeError('a stranger')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonesuch")
    done = conform(digits, "detector", "digits", "--claim", "taxonomy", PYTEST_ADDOPTS="--nonesuch")
    assert done.returncode == 0, done.stderr


def test_a_process_that_dies_between_claims_or_at_its_end_is_told(tmp_path: Path) -> None:
    at_exit = "import atexit, os; '\\x00' in text and atexit.register(os._exit, 3)"
    card = json.loads(conform(written(tmp_path, at_exit), "detector", "digits", "--claim", "strange", "--json").stdout)
    assert claims(card["passed"]) == {"test_strange_characters_do_not_break_it"}
    assert [(row["claim"], row["reason"]) for row in card["failed"]] == [
        ("the_end", "it ended its process with exit code 3")
    ]
