from __future__ import annotations

import io
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.cli import main
from fulmen_core.descriptors import DetectorInfo
from fulmen_core.errors import UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_safety.redaction import Redaction

POLICY = """
name = "small"
version = "3"
taxonomy = "1.1"
failure.en = "no"

[[detectors]]
name = "terms"
[[detectors.settings.lists]]
category = "privacy_pii"
label = "name"
terms = ["Ada", "Ada Lovelace", "Lovelace's"]
[[detectors.settings.lists]]
category = "self_harm"
label = "pill"
terms = ["red pill"]
[[detectors.settings.lists]]
category = "prompt_attack"
label = "spell"
terms = ["abracadabra"]

[categories.default]
threshold = 0.5
corpus = "keep"
reward = 0.5
input = "allow"
output = "allow"

[categories.privacy_pii]
corpus = "redact"
output = "redact"

[categories.self_harm]
output = "stop"
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("redact") / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.of("fulmen_safety.plugin")


def given_on_stdin(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))


TEXT = "我是Ada。Ada Lovelace's red pill, abracadabra\r\nend"


def test_the_redacted_text_is_printed_as_it_is_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], policy: Path
) -> None:
    given_on_stdin(monkeypatch, TEXT.encode())
    assert main(["raise", "redact", "--policy", str(policy)]) == 0
    assert capsys.readouterr().out == "我是[NAME]。[NAME] [PILL], abracadabra\r\nend"


def test_json_has_the_text_and_spans_with_offsets_into_what_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], policy: Path
) -> None:
    given_on_stdin(monkeypatch, TEXT.encode())
    assert main(["raise", "redact", "--policy", str(policy), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["text"] == "我是[NAME]。[NAME] [PILL], abracadabra\r\nend"
    assert [(TEXT[one["start"] : one["end"]], one["kind"]) for one in printed["spans"]] == [
        ("Ada", "name"),
        ("Ada Lovelace's", "name"),
        ("red pill", "pill"),
    ]


def test_only_the_kinds_that_are_named_are_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], policy: Path
) -> None:
    given_on_stdin(monkeypatch, TEXT.encode())
    assert main(["raise", "redact", "--policy", str(policy), "--kinds", "pill"]) == 0
    assert capsys.readouterr().out == TEXT.replace("red pill", "[PILL]")


def test_a_character_cut_by_a_piece_and_a_text_of_many_pieces_come_out_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], policy: Path
) -> None:
    text = "a" + "字Ada，" * 9000
    given_on_stdin(monkeypatch, text.encode())
    assert main(["raise", "redact", "--policy", str(policy), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["text"] == text.replace("Ada", "[NAME]")
    assert {text[one["start"] : one["end"]] for one in printed["spans"]} == {"Ada"}
    assert len(printed["spans"]) == 9000


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        (["--kinds", "nmae"], b"x", "unknown kind 'nmae'"),
        (["--kinds", ","], b"x", "--kinds names nothing"),
        (["--key-file", "k"], b"x", "goes with --replacement surrogate"),
        (["--replacement", "surrogate", "--key-file", "/nonexistent"], b"x", "the key cannot be read"),
        ([], b"ab" * 10_000 + b"\xff", "invalid UTF-8 at byte 20000"),
        ([], b"ab\xe5\xad", "invalid UTF-8 at byte 2"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_half_redacted_in_silence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    policy: Path,
    arguments: list[str],
    given: bytes,
    told: str,
) -> None:
    given_on_stdin(monkeypatch, given)
    assert main(["raise", "redact", "--policy", str(policy), *arguments]) == 2
    assert told in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["Ada", " Lovelace", "'s", "red", " pill", "字", ". ", "x"]), max_size=12).map("".join),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_however_it_is_cut_the_text_and_the_spans_are_the_same(
    policy: Path, registry: Registry, text: str, cuts: list[int]
) -> None:
    redaction = Redaction(registry, policy)
    whole = "".join(redaction.redacted([text]))
    spans = redaction.spans
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert "".join(redaction.redacted(pieces)) == whole
    assert redaction.spans == spans


def test_a_detector_that_fails_ends_it_with_an_error(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def scan(self, text: str) -> list[Any]:
            raise RuntimeError("gone")

    module = ModuleType("broken_plugin")

    @hookimpl
    def fulmen_raise_detectors() -> list[DetectorInfo]:
        def load(settings: Mapping[str, object]) -> Broken:
            return Broken()

        return [DetectorInfo("broken", "", ("output",), ("privacy_pii",), ("en",), "rules", load)]

    module.fulmen_raise_detectors = fulmen_raise_detectors  # type: ignore[attr-defined]
    path = tmp_path / "policy.toml"
    path.write_text(
        POLICY.replace('name = "terms"', 'name = "broken"').split("[[detectors.settings", 1)[0]
        + """
[categories.default]
threshold = 0.5
corpus = "redact"
reward = 0.5
input = "rewrite"
output = "redact"
"""
    )
    redaction = Redaction(Registry.of("fulmen_safety.plugin", module), path)
    with pytest.raises(UserError, match="broken gave no result, so the text was not redacted"):
        list(redaction.redacted(["x"]))
