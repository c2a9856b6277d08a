"""Every hook of Fulmen, one module per group; `hookimpl` marks an implementation, `GROUPS` maps groups to specs.

In: nothing. Out: `hookspec`, `hookimpl`, `GROUPS`, `HOOK_GENERATION`. May import: pluggy and the standard library only.

A hook either *registers* (returns frozen descriptions whose `load` is lazy) or *announces* an event (returns None),
never both. A plugin is a light module named by an entry point, with at least one `@hookimpl` function. It must import
nothing heavy.
"""

from __future__ import annotations

import pluggy

PROJECT = "fulmen"
HOOK_GENERATION = "v1"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Entry-point group -> the module in this package that declares its hooks. A plugin implements at least one hook of the
#: group it is declared in; it may implement hooks of other groups and events besides.
GROUPS: dict[str, str] = {
    f"fulmen.backends.{HOOK_GENERATION}": "fulmen_core.hooks.backends",
    f"fulmen.exporters.{HOOK_GENERATION}": "fulmen_core.hooks.exporters",
    f"fulmen.formats.{HOOK_GENERATION}": "fulmen_core.hooks.formats",
    f"fulmen.raise.{HOOK_GENERATION}": "fulmen_core.hooks.guards",
    f"fulmen.data.{HOOK_GENERATION}": "fulmen_core.hooks.data",
    f"fulmen.training.{HOOK_GENERATION}": "fulmen_core.hooks.training",
    f"fulmen.evals.{HOOK_GENERATION}": "fulmen_core.hooks.evals",
    f"fulmen.tools.{HOOK_GENERATION}": "fulmen_core.hooks.tools",
    f"fulmen.commands.{HOOK_GENERATION}": "fulmen_core.hooks.commands",
    f"fulmen.events.{HOOK_GENERATION}": "fulmen_core.hooks.events",
}

__all__ = ["GROUPS", "HOOK_GENERATION", "PROJECT", "hookimpl", "hookspec"]
