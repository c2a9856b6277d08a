"""The bench that tries to make a stream leak finds none in the guard, and finds every leak that is put in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fulmen_core.guard import OutputChunk
from fulmen_core.registry import Registry
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.hold_back import HoldBack
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.policy import load_policy

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

import stream_leaks


@pytest.fixture(scope="module")
def guard() -> RaiseGuard:
    return RaiseGuard(stream_leaks.with_terms(load_policy()), Registry.discover())


def test_nothing_leaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stream_leaks.py", "--chunkings", "300", "--json"])
    assert stream_leaks.main() == 0, capsys.readouterr().out
    result = json.loads(capsys.readouterr().out)
    assert (result["leaks"], result["chunkings"]) == (0, 300)
    assert {"pii", "terms"} <= set(result["detectors"])


def test_a_detector_that_holds_nothing_back_is_found(guard: RaiseGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatternDetector, "is_open", lambda self, text, place, patterns: False)
    found = stream_leaks.run(guard, 60, seed=1)
    assert found.leaks > 10
    assert "delivered" in found.examples[0]["why"]


def test_what_is_tried_does_not_depend_on_the_jobs(guard: RaiseGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_leaks, "_BLOCK", 20)
    alone, together = (stream_leaks.run(guard, 50, seed=1, jobs=jobs) for jobs in (1, 2))
    assert alone == together
    assert alone.chunkings == 50


def test_every_disguise_that_is_planted_is_seen_through(guard: RaiseGuard) -> None:
    found = stream_leaks.run(guard, 1000, seed=5)
    assert sum(count for kind, count in found.planted.items() if not kind.endswith("plain")) > 50
    assert found.unseen == {}


def test_a_stream_that_nobody_guards_is_found(guard: RaiseGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HoldBack, "_advance", lambda self, *, final: OutputChunk(self.__dict__.pop("_text", "")))
    monkeypatch.setattr(HoldBack, "_text", "", raising=False)
    assert stream_leaks.run(guard, 50, seed=1).leaks == 50


def test_a_plain_value_that_the_guard_does_not_see_counts_as_a_leak(tmp_path: Path) -> None:
    blind = tmp_path / "blind.toml"
    names = [entry.name for entry in load_policy().detectors]
    entries = "".join(f'[[detectors]]\nname = "{name}"\nenabled = false\n' for name in names)
    blind.write_text(f'extends = "default"\n{entries}')
    found = stream_leaks.run(RaiseGuard(load_policy(blind), Registry.discover()), 30, seed=1)
    assert found.leaks > 0
    assert "can be read" in found.examples[0]["why"]
