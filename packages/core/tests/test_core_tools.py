"""A tool arrives through the registry: named, made with its settings, and imported only then."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fulmen_core.errors import PluginError, UserError
from fulmen_core.registry import Registry
from fulmen_core.tool import ToolContext, ToolResult

TOOLS = "fulmen.tools.v1"
SOURCE = """
from fulmen_core.descriptors import ToolInfo
from fulmen_core.errors import UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.tool import ToolResult

def make(settings):
    if settings.keys() - {"unit"}:
        raise UserError(f"unknown setting {sorted(settings)[0]}")
    return lambda arguments, context: ToolResult((f"{arguments['n'] * 2} {settings.get('unit', '')}",))

@hookimpl
def fulmen_tools():
    return [ToolInfo("double", "twice a number", {"type": "object"}, make)]
"""


def test_a_tool_is_made_with_its_settings_when_it_is_named(site: Any) -> None:
    site.install("acme-double", {TOOLS: {"double": "acme_double"}}, {"acme_double": SOURCE})
    registry = Registry.discover()
    assert [(record.kind, record.state) for record in registry.records()] == [("tool", "declared")]
    assert registry.tool_info("double").description == "twice a number"
    tool = registry.tool("double", {"unit": "km"})
    assert tool({"n": 21}, ToolContext("r", time.monotonic() + 1)) == ToolResult(("42 km",))


def test_settings_that_a_tool_refuses_are_the_users_fault(site: Any) -> None:
    site.install("acme-double", {TOOLS: {"double": "acme_double"}}, {"acme_double": SOURCE})
    with pytest.raises(UserError, match="unknown setting colour"):
        Registry.discover().tool("double", {"colour": "red"})


def test_an_unknown_tool_is_refused_with_what_is_near(site: Any) -> None:
    site.install("acme-double", {TOOLS: {"double": "acme_double"}}, {"acme_double": SOURCE})
    registry = Registry.discover()
    registry.tool_info("double")
    with pytest.raises(PluginError, match=r"unknown tool 'duoble': did you mean 'double'\?"):
        registry.tool_info("duoble")


def test_a_result_that_is_one_text_is_refused_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="a tuple of str"):
        ToolResult("42")  # type: ignore[arg-type]


def test_no_time_remains_after_the_deadline() -> None:
    assert ToolContext("r", time.monotonic() - 1).remaining_seconds == 0.0
    assert 0 < ToolContext("r", time.monotonic() + 60).remaining_seconds <= 60
