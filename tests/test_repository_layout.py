"""Claims about the repository as a whole: members, versions, directions, and what must never be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(
    path.parent for pattern in ("packages", "backends", "plugins") for path in (ROOT / pattern).glob("*/pyproject.toml")
)
PROJECTS = {member: tomllib.loads((member / "pyproject.toml").read_text()) for member in MEMBERS}
CODE_MEMBERS = [member for member in MEMBERS if (member / "src").is_dir()]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_every_member_takes_its_version_from_the_one_file_and_describes_itself(member: Path) -> None:
    project = PROJECTS[member]
    assert project["tool"]["hatch"]["version"]["path"] == "../../VERSION.py"
    assert project["project"]["license"] == "Apache-2.0"
    assert len((member / "README.md").read_text().splitlines()) >= 10


@pytest.mark.parametrize("member", CODE_MEMBERS, ids=lambda path: path.name)
def test_every_member_with_code_is_typed_and_tested(member: Path) -> None:
    package = PROJECTS[member]["project"]["name"].replace("-", "_")
    assert (member / "src" / package / "py.typed").is_file()
    assert list((member / "tests").glob("test_*.py"))


def test_members_ask_for_siblings_of_their_own_version() -> None:
    version = re.search(r'"(.+)"', (ROOT / "VERSION.py").read_text().split("__version__", 1)[1])
    assert version is not None
    for member, project in PROJECTS.items():
        table = project["project"]
        groups = [table.get("dependencies", []), *table.get("optional-dependencies", {}).values()]
        for requirement in (r for group in groups for r in group):
            if requirement.startswith("fulmen") and not requirement.startswith(table["name"] + "["):
                assert requirement.endswith(f"={version[1]}"), f"{member.name}: {requirement}"


def test_the_workspace_file_lists_every_member() -> None:
    listed = {
        line.split("./", 1)[1].split("[")[0].strip()
        for line in (ROOT / "requirements/members.txt").read_text().splitlines()
        if line.startswith("-e")
    }
    assert listed == {str(member.relative_to(ROOT)) for member in MEMBERS}


def test_no_backend_or_plugin_is_imported_by_name_outside_itself() -> None:
    guests = {
        PROJECTS[member]["project"]["name"].replace("-", "_")
        for member in CODE_MEMBERS
        if member.parent.name in {"backends", "plugins"}
    }
    for member in CODE_MEMBERS:
        own = PROJECTS[member]["project"]["name"].replace("-", "_")
        for path in (member / "src").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                roots = {name.partition(".")[0] for name in names}
                assert not (roots & guests) - {own}, f"{path.relative_to(ROOT)} imports {roots & guests}"


def test_the_gate_runs_the_readme_test_command() -> None:
    command = 'pip install "nox[uv]" && nox -s tests'
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci/run").read_text()


def test_nothing_of_one_machine_is_tracked() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if files.returncode != 0:
        pytest.skip("not a git checkout")
    tracked = files.stdout.splitlines()
    assert "uv.lock" not in tracked
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if (ROOT / name).is_file()}
    weights = re.compile(r"plugins/raise-\w+/src/.+/model\.safetensors")  # of detectors, which come with theirs
    too_big = [name for name, size in sizes.items() if size > (6_500_000 if weights.fullmatch(name) else 2_000_000)]
    assert too_big == []
