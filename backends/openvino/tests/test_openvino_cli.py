"""`fulmen export --to openvino` from the shell's side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fulmen_backend_openvino import plugin
from fulmen_core.cli import main
from fulmen_core.descriptors import Availability
from fulmen_testing.exporter.exported import Exported


def test_export_replaces_an_older_artefact_checks_and_reports_as_json(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    (out / "openvino_model.xml").write_bytes(b"an older artefact, and a broken one")
    words = ["export", "--to", "openvino", "--model", str(lightning.model), "--out", str(out), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["max_abs_diff"] <= 1e-4
    assert result["greedy_equal"] is True
    assert result["manifest"]["format"] == "openvino"
    assert (out / "openvino_model.xml").stat().st_size > 100_000


def test_an_artefact_is_checked_alone_and_where_no_exporter_can_run(
    lightning: Exported, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "probe_export", lambda: Availability(ok=False, reason="torch is not installed"))
    assert main(["export", "check", str(lightning.artefact), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["max_abs_diff"] <= 1e-4
    assert found["greedy_equal"] is True


def test_a_damaged_model_is_one_sentence_and_code_2(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(lightning.model, tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["export", "--to", "openvino", "--model", str(model), "--out", str(tmp_path / "out")]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("fulmen: error: ")
    assert "model.safetensors" in last
    assert not (tmp_path / "out").exists()
