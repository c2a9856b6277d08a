from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fulmen_core.cli import main

POLICY = """
name = "small"
version = "3"
taxonomy = "1.1"
failure.en = "no"
failure.zh = "不行"

[[detectors]]
name = "terms"
[[detectors.settings.lists]]
category = "privacy_pii"
label = "name"
terms = ["Ada"]

[categories.default]
threshold = 0.5
corpus = "redact"
reward = 0.5
input = "rewrite"
output = "redact"
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.mark.parametrize(("phase", "action"), [("input", "rewrite"), ("output", "redact"), ("corpus", "redact")])
def test_check_prints_the_verdict_as_json(
    capsys: pytest.CaptureFixture[str], policy: str, phase: str, action: str
) -> None:
    assert main(["raise", "check", "--text", "我是Ada。", "--phase", phase, "--policy", policy, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["action"], verdict["text"]) == (action, "我是[NAME]。")
    assert verdict["policy_version"].startswith("3+")
    assert verdict["latency_ms"] >= 0
    (finding,) = verdict["findings"]
    assert {key: finding[key] for key in ("detector", "category", "label", "score", "start", "end")} == {
        "detector": "terms",
        "category": "privacy_pii",
        "label": "name",
        "score": 1.0,
        "start": 2,
        "end": 5,
    }


def test_check_speaks_to_people_too(capsys: pytest.CaptureFixture[str], policy: str) -> None:
    assert main(["raise", "check", "--text", "I am Ada", "--policy", policy]) == 0
    out = capsys.readouterr().out
    assert "rewrite" in out
    assert "I am [NAME]" in out


def test_check_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"Ada\n")))
    assert main(["raise", "check", "--text", "-", "--policy", policy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "[NAME]\n"


def test_invalid_utf_8_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"ab\xff")))
    assert main(["raise", "check", "--text", "-", "--policy", policy]) == 2
    assert "invalid UTF-8 at byte 2 in standard input" in capsys.readouterr().err
    assert main(["raise", "check", "--text", "ab\udcff", "--policy", policy]) == 2
    assert "not valid UTF-8" in capsys.readouterr().err


def test_a_policy_is_shown_as_table_json_and_toml(capsys: pytest.CaptureFixture[str], policy: str) -> None:
    assert main(["raise", "policy", "show", policy]) == 0
    assert "RAISE-4 output" in capsys.readouterr().out
    assert main(["raise", "policy", "show", policy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["categories"]["default"]["output"] == "redact"
    assert main(["raise", "policy", "show", policy, "--toml"]) == 0
    assert capsys.readouterr().out == POLICY


def test_lint_remarks_on_what_may_not_be_meant(capsys: pytest.CaptureFixture[str], policy: str, tmp_path: Path) -> None:
    assert main(["raise", "policy", "lint", policy]) == 0
    assert "0 remarks" in capsys.readouterr().out
    other = tmp_path / "other.toml"
    open_policy = POLICY.replace('name = "terms"', 'name = "terms"\non_error = "open"').replace(
        'output = "redact"', 'output = "replace"\nmessage.en = "no"'
    )
    other.write_text(open_policy)
    assert main(["raise", "policy", "lint", str(other), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["remarks"]
    assert any("fails open" in remark for remark in told)
    assert any("message.zh" in remark for remark in told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chek"], "did you mean 'check'"),
        (["check", "--phase", "input"], "--text"),
        (["check", "--text", "x", "--phase", "inptu"], "inptu"),
        (["check", "--text", "x", "--policy", "/nowhere.toml"], "there is no policy"),
        (["policy", "sho"], "sho"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["raise", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert "\n" not in error


def test_usage_is_printed_without_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raise"]) == 0
    assert "fulmen raise check" in capsys.readouterr().out


def test_a_plugins_verb_is_one_of_raise_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plugin = tmp_path / "greeter.py"
    plugin.write_text(
        "from fulmen_core.descriptors import CommandInfo\n"
        "from fulmen_core.hooks import hookimpl\n"
        "def run(argv):\n    print('hello', *argv)\n    return 0\n"
        "@hookimpl\n"
        "def fulmen_commands():\n    return [CommandInfo('raise-greeting', 'greets', run)]\n"
    )
    assert main(["--plugin", str(plugin), "raise", "greeting", "you", "--all"]) == 0
    assert capsys.readouterr().out == "hello you --all\n"
    assert main(["raise", "greeting"]) == 2
    assert "unknown verb 'greeting'" in capsys.readouterr().err
