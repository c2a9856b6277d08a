"""The tools of one server, and how much of them an answer may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fulmen_core.errors import UserError
from fulmen_core.registry import Registry
from fulmen_core.suggestions import closest
from fulmen_serving.refusal import Refusal
from fulmen_serving.tools.server_tool import ServerTool, load_tool
from fulmen_serving.tools.tool_runner import ToolRunner

#: The request's field that allows tools.
FIELD = "server_tools"


@dataclass(frozen=True, slots=True)
class ToolBounds:
    """What one answer may spend on tools.

    Attributes:
        rounds: how often the model may call before it has to answer.
        calls: in one round; further ones are answered with an error.
        seconds: of waiting for tools, all calls together.
    """

    rounds: int = 4
    calls: int = 4
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.calls < 1 or not 0 < self.seconds < float("inf"):
            raise UserError(
                f"{self.rounds} rounds of {self.calls} calls in {self.seconds} s are no bounds for tools",
                remedy="give numbers above 0",
            )


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools that `fulmen serve --tools` named, by name; empty by default."""

    tools: Mapping[str, ServerTool] = field(default_factory=dict)
    bounds: ToolBounds = ToolBounds()
    runner: ToolRunner = field(default_factory=ToolRunner)

    def allowed(self, names: Sequence[str]) -> dict[str, ServerTool]:
        """The tools that a request allows.

        Raises:
            Refusal: 400, this server has no tool of a name.
        """
        for name in names:
            if name not in self.tools:
                near = closest(name, self.tools)
                known = ", ".join(self.tools) or "none"
                hint = f"did you mean '{near}'?" if near else f"its tools: {known}"
                raise Refusal(
                    400, f"'{FIELD}': this server has no tool '{name}'; {hint}", code="invalid_value", param=FIELD
                )
        return {name: self.tools[name] for name in dict.fromkeys(names)}


def load_toolbox(
    registry: Registry, names: Sequence[str], options: Mapping[str, Mapping[str, object]], bounds: ToolBounds
) -> Toolbox:
    """Make the tools called `names`, each with its table of `options`.

    Raises:
        UserError: a tool is named twice, options are given for one that is not named, or a tool or option is at fault.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the tool {twice!r} is named twice", where="--tools", remedy="name it once")
    for name in options:
        if name not in names:
            raise UserError(
                f"there is an option of the tool {name!r}, which is not named", remedy=f"add it: --tools {name}"
            )
    return Toolbox({name: load_tool(registry, name, options.get(name, {})) for name in names}, bounds)
