"""The plugins in `examples/`: made by `fulmen plugins new`, whole distributions, and each meets its contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fulmen_core.registry import Registry
from fulmen_core.skeletons.writing import KINDS, Kind, Skeleton
from fulmen_serving.api.app import make_app
from fulmen_serving.loading import ServingOptions, load_service

ROOT = Path(__file__).parents[1]
EXAMPLES: dict[Kind, tuple[str, Path]] = {
    "backend": ("acme", ROOT / "examples/backend-acme"),
    "detector": ("tickets", ROOT / "examples/detector-tickets"),
}

examples = pytest.mark.parametrize("kind", list(EXAMPLES))


def installed(folder: Path, example: Path) -> str:
    """A folder that looks as if pip had installed the example into it, as a path for PYTHONPATH."""
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
    return os.pathsep.join([str(folder), str(example / "src")])


@examples
def test_an_example_is_what_the_command_writes(kind: Kind) -> None:
    name, folder = EXAMPLES[kind]
    written = Skeleton(kind, name).files()
    tracked = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = {path for path in tracked if "__pycache__" not in path and ".egg-info" not in path}
    assert there == set(written), f"write it again: fulmen plugins new {kind} {name} --out {folder.relative_to(ROOT)}"
    assert {path: (folder / path).read_text(encoding="utf-8") for path in written} == written


@examples
def test_its_own_tests_pass(kind: Kind) -> None:
    order = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(order, cwd=EXAMPLES[kind][1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@examples
def test_installed_it_is_listed_loads_and_conforms(kind: Kind, tmp_path: Path) -> None:
    name, folder = EXAMPLES[kind]
    environment = os.environ | {"PYTHONPATH": installed(tmp_path, folder)}

    def fulmen(*words: str) -> str:
        order = [sys.executable, "-P", "-m", "fulmen_core", *words]
        done = subprocess.run(order, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    rows = {row["name"]: row for row in json.loads(fulmen("plugins", "--json"))}
    assert (rows[name]["distribution"], rows[name]["state"]) == (Skeleton(kind, name).distribution, "declared")
    claims = ["--claim", "plugin", "--claim", "greedy", "--claim", "pure_function", "--claim", "stream_delivers"]
    card = json.loads(fulmen("conform", kind, name, "--json", *claims))
    assert card["failed"] == []
    assert len(card["passed"]) >= 3
    assert (card["distribution"], card["version"]) == (Skeleton(kind, name).distribution, "0.1.0")


def test_the_example_backend_answers_as_the_cpu_does(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES["backend"][1] / "src")
    answers = []
    for backend, plugin in (("cpu", "fulmen_backend_cpu.plugin"), ("acme", "acme_fulmen_backend.plugin")):
        service = load_service(ServingOptions(models / "cpu", backend=backend, guarded=False), Registry.of(plugin))
        try:
            with TestClient(make_app(service)) as client:
                name = client.get("/v1/models").json()["data"][0]["id"]
                asked = [{"role": "user", "content": "How many layers?"}]
                request = {"model": name, "messages": asked, "max_tokens": 24, "temperature": 0}
                answer = client.post("/v1/chat/completions", json=request)
                assert answer.status_code == 200, answer.text
                answers.append(answer.json()["choices"][0])
        finally:
            service.close()
    assert answers[1] == answers[0]


def test_there_is_a_skeleton_of_every_kind() -> None:
    assert set(EXAMPLES) <= set(KINDS)
    assert KINDS == ("backend", "detector", "source", "benchmark")
