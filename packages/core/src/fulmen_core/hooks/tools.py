"""Hooks of the group ``fulmen.tools.v1``: tools that the server itself runs when the model calls them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import ToolInfo


@hookspec
def fulmen_tools() -> Iterable[ToolInfo]:  # type: ignore[empty-body]
    """Describe tools that a served model may call.

    Called by: `fulmen serve --tools NAME,...`, for the tools that are named there and for no others; a request must
    allow a tool by name before the model is told of it. `load` gives ``make(settings) -> fulmen_core.tool.Tool``.
    May go wrong: a named tool that cannot be made stops the server from starting. A call that raises, is late, or
    returns too much is told to the model as the tool's error; the answer goes on, and so does the server.
    """
