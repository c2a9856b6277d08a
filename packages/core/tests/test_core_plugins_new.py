"""`fulmen plugins new` writes a distribution that works, into a new folder, whole or not at all."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import main
from fulmen_core.hooks import GROUPS
from fulmen_core.skeletons.writing import KINDS, Kind, Skeleton

MODULES: dict[Kind, set[str]] = {
    "backend": {"backend.py", "runner.py"},
    "detector": {"detector.py"},
    "source": {"source.py"},
    "benchmark": {"benchmark.py"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_skeleton_is_a_whole_distribution(kind: Kind, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new"
    assert main(["plugins", "new", kind, "acme-two", "--out", str(out), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    package = f"acme_two_fulmen_{kind}"
    assert (written["distribution"], written["package"]) == (f"acme-two-fulmen-{kind}", package)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    modules = {f"src/{package}/{name}" for name in {"__init__.py", "plugin.py", "py.typed"} | MODULES[kind]}
    assert found == modules | {"pyproject.toml", "README.md", f"tests/test_{kind}.py"} == set(written["files"])
    project = tomllib.loads((out / "pyproject.toml").read_text())
    ((group, points),) = project["project"]["entry-points"].items()
    assert group in GROUPS
    assert points == {"acme-two": f"{package}.plugin"}
    for name in found:
        text = (out / name).read_text(encoding="utf-8")
        assert "$" not in text.replace('}$"', "")
        if name.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize("kind", ["source", "benchmark"])
def test_its_tests_pass_as_they_are_written(kind: Kind, tmp_path: Path) -> None:
    Skeleton(kind, "acme").write(tmp_path / "new")
    order = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(order, cwd=tmp_path / "new", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["backend", "Acme"], "'Acme' is no name for a backend: it begins with a letter"),
        (["backend", "acme--two"], "is no name for a backend"),
        (["backend", "../acme"], "is no name for a backend"),
        (["backend", "2acme"], "is no name for a backend"),
        (["backend", ""], "is no name for a backend"),
        (["backend", "a" * 41], "is no name for a backend"),
        (["backend", "import"], "'import' is a word of Python"),
        (["backends", "acme"], "there is no skeleton of a 'backends': did you mean 'backend'?"),
        (["backend"], "the following arguments are required: NAME"),
    ],
)
def test_a_bad_name_or_kind_is_one_sentence_and_writes_nothing(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes").write_text("mine")
    assert main(["plugins", "new", "detector", "acme", "--out", str(out)]) == 2
    assert "mine is there already in --out: name a new folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["notes"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    assert main(["plugins", "new", "detector", "acme", "--out", str(tmp_path / "file" / "new")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_default_folder_is_the_distributions_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "source", "acme"]) == 0
    assert "next: cd acme-fulmen-source && pip install -e '.[test]' && pytest" in capsys.readouterr().out
    assert (tmp_path / "acme-fulmen-source/pyproject.toml").is_file()
