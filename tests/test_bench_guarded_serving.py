"""The benchmark of what RAISE takes from a server serves one model three times and compares them in turns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

import guarded_serving


def test_every_server_answers_in_full_and_is_compared_with_the_unguarded_one(models: Path, tmp_path: Path) -> None:
    sizes = ["--streams", "2", "--rounds", "2", "--answers", "1", "--prompt-tokens", "120", "--output-tokens", "6"]
    (tmp_path / "S").mkdir()
    [cell] = guarded_serving._cells(guarded_serving._parse([*sizes, "--work", str(tmp_path)]), models / "cpu")
    assert (cell["shape"], cell["streams"]) == ("S", 2)
    for kind in ("guarded", "guard_process"):
        low, high = cell[f"{kind}_kept_of_rounds"]
        assert 0 < low <= cell[f"{kind}_kept"] <= high
        assert abs(cell[f"{kind}_kept"] + cell[f"{kind}_loss"] - 1) < 1e-3
        assert cell[f"{kind}_first_token_ms"] > 0
    json.dumps(cell)


def test_its_policy_lets_every_detector_judge_and_ends_no_answer(tmp_path: Path) -> None:
    policy = guarded_serving.load_policy(guarded_serving._policy(tmp_path / "policy.toml"))
    assert {policy.category(name).output for name in policy.file.categories} == {"allow"}
    assert [one.name for one in policy.file.detectors] == [
        one.name for one in guarded_serving.load_policy().file.detectors
    ]
