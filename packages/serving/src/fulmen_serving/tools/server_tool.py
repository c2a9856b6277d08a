"""One tool that the server may run, as the operator set it up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from fulmen_core.errors import PluginError, UserError
from fulmen_core.registry import Registry
from fulmen_core.tool import Tool

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Options of every tool, which are the server's own; whatever else is set goes to the tool.
SERVER_OPTIONS = ("description", "deadline_seconds", "max_result_characters")


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool with its bounds.

    Attributes:
        name: what the model calls.
        description: what the model reads.
        parameters: JSON Schema of the arguments.
        call: the tool.
        deadline_seconds: the longest that a call may take.
        max_result_characters: a longer result is an error.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Tool
    deadline_seconds: float
    max_result_characters: int

    @property
    def definition(self) -> dict[str, Any]:
        """The tool in the form of an OpenAI request's ``tools``."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    def fault_of(self, arguments: object) -> str:
        """What is wrong with `arguments` under `parameters`, in a sentence; empty if nothing is."""
        error = best_match(Draft202012Validator(self.parameters).iter_errors(arguments))
        if error is None:
            return ""
        place = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"the arguments{place} do not fit: {error.message[:300]}"


def load_tool(registry: Registry, name: str, options: Mapping[str, object]) -> ServerTool:
    """Make a tool of a plugin.

    Args:
        registry: where it comes from.
        name: which.
        options: the server's own (`SERVER_OPTIONS`) and the tool's.

    Raises:
        PluginError: it is unknown, broken, blocked or in conflict, or declares what cannot be.
        UserError: an option is at fault.
    """
    info = registry.tool_info(name)
    if not _NAME.fullmatch(name):
        raise PluginError(f"the tool {name!r} cannot be called: a name has at most 64 letters, digits, '_' and '-'")
    try:
        Draft202012Validator.check_schema(dict(info.parameters))
    except SchemaError as error:
        raise PluginError(f"the tool {name!r} declares parameters that are no JSON Schema: {error.message}") from error
    own = {key: value for key, value in options.items() if key not in SERVER_OPTIONS}
    return ServerTool(
        name,
        str(options.get("description", info.description)),
        info.parameters,
        registry.tool(name, own),
        _positive(name, options, "deadline_seconds", info.deadline_seconds),
        int(_positive(name, options, "max_result_characters", info.max_result_characters)),
    )


def _positive(name: str, options: Mapping[str, object], key: str, default: float) -> float:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{name}.{key} is {value!r}", where="--tool-option", remedy="give a number above 0")
    return value
