"""The soak drives a real `fulmen serve` for seconds: it finds a spoilt answer, and nothing else is at fault."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import soak  # noqa: E402 - the benchmark is a folder of scripts, not a distribution
from soaking.load import Load  # noqa: E402
from soaking.server_state import ProcessState, growth  # noqa: E402

SAMPLES = dict.fromkeys(
    (
        "fulmen_model_restarts_total",
        "fulmen_model_busy_fraction",
        "fulmen_reused_prompt_tokens_total",
        "fulmen_preemptions_total",
    ),
    0.0,
)
QUIET = soak.Quiet(12, 12, ProcessState(1, 100 << 20, 7, 8), ProcessState(2, 300 << 20, 4, 4), 1)


def test_a_spoilt_answer_is_found_under_load_and_kills_and_nothing_else_is_at_fault(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers_alone = soak._answers_alone

    async def spoilt(*args):
        questions = await answers_alone(*args)
        for question in questions:
            if question.kind == "several":
                question.expected["texts"][1] += "!"
        return questions

    monkeypatch.setattr(soak, "_answers_alone", spoilt)
    asked = ["--minutes", "0.1", "--questions", "16", "--clients", "4", "--sequences", "3", "--kill-every", "1.5"]
    assert soak.main(["--json", "--model", str(models / "cpu"), "--work", str(tmp_path), *asked]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["faults"]
    assert all("s: several, " in fault for fault in figures["faults"]), figures["faults"]
    assert figures["restarts"] == figures["requests"]["kills"] > 0
    assert figures["requests"]["streamed"] > 0
    assert figures["requests"]["whole"] > 0


def figures_of(after: soak.Quiet, rss: list[int], restarts: float = 0.0) -> list[str]:
    args = soak._parse(["--minutes", "1"])
    load = Load("", 0, [], 1, soak.random.Random(0))
    load.looks = [(float(i), replace(QUIET.server, rss=one), QUIET.model) for i, one in enumerate(rss)]
    samples = SAMPLES | {"fulmen_model_restarts_total": restarts}
    return soak._figures(args, load, QUIET, after, samples)["faults"]


def test_what_is_held_longer_than_it_should_be_is_a_fault() -> None:
    flat = [100 << 20] * 60
    assert figures_of(QUIET, flat) == []
    assert figures_of(replace(QUIET, server=replace(QUIET.server, threads=6, files=7)), flat) == []
    for change, name in (
        ({"used_pages": 13}, "kv_used_pages"),
        ({"used_pages": 11}, "kv_used_pages"),
        ({"kept_prefixes": 11}, "kept_prefixes"),
        ({"children": 2}, "children"),
        ({"server": replace(QUIET.server, threads=8)}, "server_threads"),
        ({"server": replace(QUIET.server, files=9)}, "server_files"),
    ):
        [fault] = figures_of(replace(QUIET, **change), flat)
        assert name in fault
    [fault] = figures_of(QUIET, [(100 + i) << 20 for i in range(60)])
    assert "memory of the server grew" in fault
    [fault] = figures_of(QUIET, flat, restarts=1.0)
    assert "0 kills, and 1 restarts" in fault


def test_growth_is_by_minute() -> None:
    grown = growth([0.5 * i for i in range(121)], [(50 << 20) + (i << 20) // 60 for i in range(121)])
    assert grown is not None
    assert grown.mib_per_minute == pytest.approx(2.0, rel=1e-3)
    assert (grown.first_mib, grown.last_mib) == pytest.approx((50.0917, 51.9083), abs=0.01)
