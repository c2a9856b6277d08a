"""`fulmen export --to onnx` from the shell's side."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fulmen_backend_onnxruntime import plugin
from fulmen_core.cli import main
from fulmen_core.descriptors import Availability
from fulmen_core.export.reference import Reference
from fulmen_core.files import hash_file
from fulmen_testing.exporter.exported import Exported


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
    assert (out / "model.onnx").stat().st_size > 10_000


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


def test_an_artefact_is_checked_alone_and_where_no_exporter_can_run(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    assert main(["export", "check", str(out), "--json"]) == 0
    by_exporter = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(plugin, "probe_export", lambda: Availability(ok=False, reason="torch is not installed"))
    assert main(["export", "check", str(out), "--json"]) == 0
    by_backend = json.loads(capsys.readouterr().out)
    assert by_exporter["prompts_seed"] == by_backend["prompts_seed"]
    for found in (by_exporter, by_backend):
        assert found["max_abs_diff"] <= 1e-4
        assert found["greedy_equal"] is True
        assert found["logits_compared"] >= 24
        assert found["greedy_tokens"] >= 64


def test_an_artefact_that_computes_something_else_is_found_without_its_model(
    lightning: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(lightning.artefact, tmp_path / "artefact")
    reference = Reference.load(out)
    dataclasses.replace(reference, logits_PV=reference.logits_PV + np.float32(1e-3)).save(out)
    manifest = json.loads((out / "fulmen_artefact.json").read_text())
    assert main(["export", "check", str(out)]) == 2  # somebody has changed a file
    assert "parity.npz is truncated or altered" in capsys.readouterr().err
    manifest["files"]["parity.npz"] = hash_file(out / "parity.npz")
    (out / "fulmen_artefact.json").write_text(json.dumps(manifest))
    assert main(["export", "check", str(out)]) == 1
    captured = capsys.readouterr()
    (reported,) = re.findall(r"logits differ by at most (\S+);", captured.out)
    assert 0.9e-3 <= float(reported) <= 1.1e-3  # fresh prompts each time, and the artefact itself is right to 1e-4
    assert f"do not use {out}" in captured.err
