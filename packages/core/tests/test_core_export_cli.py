"""`fulmen export` with an exporter from a plugin file: what it refuses, prints, announces and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fulmen_core.cli import main

#: A whole exporter of a format that is a copy of the config, and a listener. Its check reports what the model folder
#: says.
PLUGIN = """
import json, shutil
from pathlib import Path
from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.descriptors import Availability, ExporterInfo
from fulmen_core.files import atomic_directory, atomic_write_json
from fulmen_core.hooks import hookimpl

class Copy:
    name = "copy"

    def export(self, model, out, options):
        manifest = {"format": "copy"}
        with atomic_directory(out) as work:
            for name in ("config.json", "check.json"):
                shutil.copyfile(model / name, work / name)
            atomic_write_json(work / MANIFEST_FILE, manifest)
        return manifest

    def check(self, out, model=None):
        return json.loads(((model or out) / "check.json").read_text())

@hookimpl
def fulmen_exporters():
    return [ExporterInfo("copy", "a copy of the config", lambda: Availability(ok=True), Copy)]

@hookimpl
def fulmen_export_done(directory, manifest):
    (directory.parent / "announced").write_text(f"{directory.name} {manifest['format']}")
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """`fulmen export` of a model whose check passes; to be run in a folder of its own."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "check.json").write_text(json.dumps({"max_abs_diff": 3e-6, "greedy_equal": True}))
    (tmp_path / "copier.py").write_text(PLUGIN)
    options = ["--to", "copy", "--model", str(model), "--out", str(tmp_path / "out")]
    return ["--plugin", str(tmp_path / "copier.py"), "export", *options]


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_the_summary_says_where_how_large_and_how_equal(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: copy, 0.0 MB" in printed
    assert "logits differ by at most 3.0e-06; greedy answers are equal" in printed
    assert (tmp_path / "announced").read_text() == "out copy"


def test_json_holds_the_measurements_and_the_manifest(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["max_abs_diff"], result["greedy_equal"], result["manifest"]) == (3e-6, True, {"format": "copy"})


@pytest.mark.parametrize(
    "found", [{"max_abs_diff": 2e-4, "greedy_equal": True}, {"max_abs_diff": 0, "greedy_equal": False}]
)
def test_an_artefact_that_computes_something_else_is_said_and_code_1(
    found: dict[str, object], arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model" / "check.json").write_text(json.dumps(found))
    assert main(arguments) == 1
    assert "computes something else" in last_error(capsys)
    assert main([*arguments, "--no-check"]) == 0


def test_an_older_artefact_is_replaced(arguments: list[str], tmp_path: Path) -> None:
    assert main(arguments) == 0
    (tmp_path / "out" / "stale").touch()
    assert main(arguments) == 0
    assert not (tmp_path / "out" / "stale").exists()


def test_anything_else_is_not(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    assert main(arguments) == 2
    assert "is a file" in last_error(capsys)
    out.unlink()
    out.mkdir()
    (out / "thesis.tex").touch()
    assert main(arguments) == 2
    assert "is not empty and holds no artefact: name a new folder" in last_error(capsys)
    assert (out / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [("--to", "papyrus", "papyrus"), ("--model", "nowhere", "there is no model folder nowhere: check --model")],
)
def test_what_does_not_exist_is_named(
    option: str, value: str, sentence: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments[arguments.index(option) + 1] = value
    assert main(arguments) == 2
    assert sentence in last_error(capsys)


def test_exporting_needs_no_torch_of_its_own() -> None:
    import subprocess
    import sys

    program = "import sys, fulmen_core.cli.export; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
