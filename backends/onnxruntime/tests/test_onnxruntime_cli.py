"""`fulmen export --to onnx` from the shell's side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fulmen_core.cli import main

from .conftest import Exported


def test_export_replaces_an_older_artefact_checks_and_reports_as_json(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    (out / "model.onnx").write_bytes(b"an older artefact, and a broken one")
    assert main(["export", "--to", "onnx", "--model", str(lightning.model), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["max_abs_diff"] <= 1e-4
    assert result["greedy_equal"] is True
    assert result["directory"] == str(out)
    assert result["manifest"]["format"] == "onnx"
    assert (out / "model.onnx").stat().st_size > 100_000


def test_a_damaged_model_is_one_sentence_and_code_2(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes((lightning.model / "config.json").read_bytes())
    (model / "model.safetensors").write_bytes((lightning.model / "model.safetensors").read_bytes()[:-1])
    assert main(["export", "--to", "onnx", "--model", str(model), "--out", str(tmp_path / "out")]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("fulmen: error: ")
    assert "model.safetensors" in last
    assert not (tmp_path / "out").exists()
