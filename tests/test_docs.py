"""The documentation says what is true: every hook and verb is described, every page is reachable, and examples run."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from fulmen_core.cli.verbs import BUILT_IN, FIRST_PARTY
from fulmen_core.hooks import GROUPS, PROJECT
from fulmen_core.registry import Registry
from fulmen_serving.tools.server_tool import load_tool
from fulmen_serving.tools.tool_runner import ToolRunner

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEMBERS = sorted(
    path.parent for kind in ("packages", "backends", "plugins") for path in (ROOT / kind).glob("*/README.md")
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def hook_names() -> set[str]:
    modules = [import_module(name) for name in GROUPS.values()]
    return {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if hasattr(function, f"{PROJECT}_spec")
    }


def test_every_hook_and_group_is_in_the_reference() -> None:
    page = (DOCS / "reference/hooks.md").read_text()
    assert len(hook_names()) >= 10
    assert {name for name in {*hook_names(), *GROUPS} if name not in page} == set()


def test_every_verb_is_in_the_reference() -> None:
    page = (DOCS / "reference/command-line.md").read_text()
    assert {verb for verb in {*BUILT_IN, *FIRST_PARTY} if f"fulmen {verb}" not in page} == set()


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert {page for page in pages if page not in navigation} == set()
    assert {page for page in re.findall(r"[\w/-]+\.md", navigation) if page not in pages} == set()


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), *(member / "README.md" for member in MEMBERS)], ids=str)
def test_every_python_example_is_python(page: Path) -> None:
    faults = []
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            try:
                compile(code, str(page), "exec")
            except SyntaxError as error:
                faults.append(str(error))
    assert faults == []


@pytest.mark.parametrize(
    ("page", "example"), [("write-a-backend", "backend-acme"), ("write-a-detector", "detector-tickets")]
)
def test_what_a_guide_quotes_stands_in_its_example(page: str, example: str) -> None:
    quoted = 0
    for language, code in BLOCK.findall((DOCS / f"how-to/{page}.md").read_text(encoding="utf-8")):
        named = re.match(r"# (\S+\.py)\n", code)
        if language == "python" and named:
            assert code[named.end() :] in (ROOT / "examples" / example / named[1]).read_text(encoding="utf-8")
            quoted += 1
    assert quoted >= 1


def test_the_tool_of_the_how_to_works_as_a_single_file(tmp_path: Path) -> None:
    code = next(
        code
        for language, code in BLOCK.findall((DOCS / "how-to/retrieval-and-tools.md").read_text(encoding="utf-8"))
        if language == "python" and code.startswith("# exchange.py")
    )
    (tmp_path / "exchange.py").write_text(code, encoding="utf-8")
    registry = Registry.discover(files=[tmp_path / "exchange.py"])
    tool = load_tool(registry, "exchange", {"deadline_seconds": 1})
    ask = {"amount": 10, "from": "EUR", "to": "CNY"}
    assert asyncio.run(ToolRunner().run(tool, json.dumps(ask), "r", 5)).parts == ("78.00 CNY",)
    refused = asyncio.run(ToolRunner().run(tool, json.dumps(ask | {"to": "GBP"}), "r", 5))
    assert refused.parts == ("Error: there is no rate of 'GBP'; there are EUR, USD, CNY",)


def test_every_backend_has_a_row_of_runs_with_every_plugin_set() -> None:
    newest = (DOCS / "reference/compatibility.md").read_text(encoding="utf-8").split("\n## ")[1]
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in newest.splitlines() if row.startswith("| ")}
    for member in (ROOT / "backends").glob("*/pyproject.toml"):
        cells = rows[member.parent.name].removesuffix(" |").split(" | ")[1:]
        assert len(cells) == 4
        assert "-" not in cells, "a combination was not run: nox -s combo compatibility"
