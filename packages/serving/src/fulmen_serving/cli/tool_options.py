"""The options of `fulmen serve` that say which tools the server runs for its model. None by default."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fulmen_core.errors import UserError
from fulmen_core.recipes import override_table

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_serving.tools.toolbox import Toolbox


def add_tool_options(parser: ArgumentParser) -> None:
    """Add ``--tools``, ``--tool-option``, ``--tool-rounds`` and ``--tool-seconds``."""
    group = parser.add_argument_group("tools that the server runs")
    group.add_argument("--tools", metavar="NAME,...", default="", help="which; a request must allow them too")
    group.add_argument(
        "--tool-option",
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="set an option of a tool, e.g. retrieval.index=handbook.db; may be repeated",
    )
    group.add_argument(
        "--tool-rounds", type=int, metavar="N", default=4, help="rounds of calls in one answer (%(default)s)"
    )
    group.add_argument(
        "--tool-seconds", type=float, metavar="S", default=30.0, help="of waiting for tools in one answer (%(default)s)"
    )


def toolbox_of(args: Namespace, registry: Registry) -> Toolbox:
    """Make the tools that the arguments name.

    Raises:
        UserError: a tool or an option is at fault.
    """
    from fulmen_serving.tools.toolbox import ToolBounds, load_toolbox

    names = [name.strip() for name in args.tools.split(",") if name.strip()]
    bounds = ToolBounds(rounds=args.tool_rounds, seconds=args.tool_seconds)
    return load_toolbox(registry, names, tool_settings(args.tool_option), bounds)


def tool_settings(options: Sequence[str]) -> dict[str, dict[str, object]]:
    """``["retrieval.index=a.db"]`` -> ``{"retrieval": {"index": "a.db"}}``. Values are TOML, or text.

    Raises:
        UserError: an option is not of the form NAME.KEY=VALUE.
    """
    for option in options:
        if option.partition("=")[0].count(".") != 1:
            raise UserError(f"{option!r} is no option of a tool", where="--tool-option", remedy="write NAME.KEY=VALUE")
    return override_table(options)
