"""The main job at toy size: every stage real, nothing learned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fulmen_core.cli import main
from fulmen_core.files import hash_tree
from fulmen_core.recipes import load_recipe
from fulmen_demo.config import DEFAULT_RECIPE, DemoConfig

TINY = Path(__file__).parent / "tiny.toml"


def test_the_shipped_recipe_is_valid() -> None:
    config = load_recipe(DemoConfig, DEFAULT_RECIPE)
    assert sum(stage.share for stage in config.pretrain.stages.all) == pytest.approx(1.0)
    assert config.pretrain.stages.decay.share == 0.125


def test_the_summary_has_its_fixed_fields_and_they_point_at_what_is_there(tiny_run: tuple[Path, int]) -> None:
    run, _ = tiny_run
    summary = json.loads((run / "summary.json").read_text())
    assert {
        "heldout_bits_per_byte", "gzip_bits_per_byte", "arithmetic_exact_match_sft", "arithmetic_exact_match_dpo",
        "reward_sft", "reward_dpo", "onnx_max_abs_diff", "onnx_greedy_equal", "seconds", "report", "model",
    } <= summary.keys()  # fmt: skip
    assert Path(summary["report"]).is_file()
    assert (Path(summary["model"]) / "model.safetensors").is_file()
    assert summary["onnx_max_abs_diff"] <= 1e-4
    assert summary["onnx_greedy_equal"] is True


def test_a_broken_promise_is_told_by_the_exit_code(tiny_run: tuple[Path, int]) -> None:
    run, code = tiny_run
    summary = json.loads((run / "summary.json").read_text())
    assert summary["arithmetic_exact_match_sft"] < 0.9  # eight steps teach nobody to add
    assert code == 1


def test_the_report_stands_on_its_own(tiny_run: tuple[Path, int]) -> None:
    run, _ = tiny_run
    html = (run / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") >= 8
    assert not re.search(r"(?:src|href)=[\"']https?://", html)
    assert "82.8125%" in html


def test_taken_again_the_road_changes_nothing(tiny_run: tuple[Path, int]) -> None:
    run, _ = tiny_run
    before = json.loads((run / "manifest.json").read_text())
    main(["--threads", "1", "demo", "--recipe", str(TINY), "--run", str(run)])
    assert json.loads((run / "manifest.json").read_text()) == before


def test_the_served_attack_was_blocked_and_no_address_reached_the_client(tiny_run: tuple[Path, int]) -> None:
    run, _ = tiny_run
    guard = json.loads((run / "guard" / "guard.json").read_text())
    assert guard["attack"]["finish_reason"] == "content_filter"
    assert "@" not in guard["leak"]["delivered"]


@pytest.mark.slow
def test_killed_in_pre_training_and_taken_again_it_ends_with_the_same_weights(
    tiny_run: tuple[Path, int], tmp_path: Path
) -> None:
    reference, _ = tiny_run
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fulmen_core", "--threads", "1", "demo", "--recipe", str(TINY), "--run", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "step" in line and (run / ".work").is_dir() and list((run / ".work").glob("base-*/checkpoints/step-*")):
            break
    process.kill()
    process.wait()
    assert not (run / "base").exists()
    subprocess.run(command, check=False)
    for name in ("base", "sft", "dpo"):
        assert hash_tree(run / name / "model.safetensors") == hash_tree(reference / name / "model.safetensors")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrain.stepz=3", "did you mean 'steps'"),
        ("pretrain.preset=nana", "nano"),
        ("pretrain.steps=few", "steps"),
    ],
)
def test_a_slip_in_an_override_is_one_sentence_and_exit_code_2(
    override: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--recipe", str(TINY), "--run", str(tmp_path / "run"), override]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert words in error
    assert "Traceback" not in error
