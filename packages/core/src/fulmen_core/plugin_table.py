"""The table of plugins behind the registry: who is declared, blocked, at fault, loaded, and who claims which name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fulmen_core.errors import PluginError
from fulmen_core.hooks import GROUPS
from fulmen_core.plugin_loader import DESCRIPTORS, LoadedPlugin, LoadFault, check_declaration, check_group, hooks_of
from fulmen_core.plugin_records import ACTIVE, DECLARED, Entry, PluginRecord, Standing, canonical
from fulmen_core.suggestions import closest, remedy_for_unknown

log = logging.getLogger(__name__)

#: Registration hook -> what one of its descriptors is called in sentences.
NOUNS = {
    "fulmen_backends": "backend",
    "fulmen_exporters": "exporter",
    "fulmen_checkpoint_formats": "checkpoint format",
    "fulmen_guards": "guard",
    "fulmen_raise_detectors": "detector",
    "fulmen_data_sources": "data source",
    "fulmen_verifiers": "verifier",
    "fulmen_trackers": "tracker",
    "fulmen_benchmarks": "benchmark",
    "fulmen_tools": "tool",
    "fulmen_commands": "verb",
}

#: What to install when nothing of a kind is there at all.
FIRST_OF_ITS_KIND = {
    "fulmen_backends": "pip install fulmen-backend-cpu",
    "fulmen_exporters": "pip install 'fulmen-backend-onnxruntime[cpu]'",
    "fulmen_checkpoint_formats": "pip install --force-reinstall --no-deps fulmen-core",
    "fulmen_guards": "pip install fulmen-safety",
    "fulmen_raise_detectors": "pip install 'fulmen[raise]'",
    "fulmen_data_sources": "pip install fulmen-trainer",
    "fulmen_verifiers": "pip install fulmen-trainer",
    "fulmen_tools": "pip install fulmen-tool-retrieval",
}


@dataclass(eq=False)
class Plugin:
    """One entry point and what became of it."""

    entry: Entry
    load: Callable[[], LoadedPlugin]
    given: bool = False  # the user named it as a file or module: it serves every group, and must not be broken
    fault: Standing | None = None
    clash: Standing | None = None  # one of its names is claimed by another plugin too; its other names stay usable
    loaded: LoadedPlugin | None = None
    event_faults: int = 0

    def record(self) -> PluginRecord:
        """How the plugin stands now."""
        standing = self.fault or self.clash or (ACTIVE if self.loaded else DECLARED)
        return standing.record(self.entry.name, self.entry.kind, self.entry)

    @property
    def remedy(self) -> str:
        """The command that mends it when nothing more precise is known."""
        return f"mend {self.entry.value}" if self.given else f"pip install --upgrade {self.entry.distribution}"


@dataclass(frozen=True)
class Found:
    """A descriptor and the plugin that brings it."""

    info: Any
    plugin: Plugin

    @property
    def noun(self) -> str:
        """What it is, e.g. ``"backend"``."""
        return next(NOUNS[hook] for hook, kind in DESCRIPTORS.items() if isinstance(self.info, kind))


class PluginTable:
    """Loads plugins when something of them is needed, each once, and finds descriptors by name. Thread-safe."""

    def __init__(self, plugins: Sequence[Plugin], *, strict: bool) -> None:
        self.plugins = list(plugins)
        self.strict = strict
        self.lock = threading.RLock()
        self._by_value: dict[str, LoadedPlugin | Standing] = {}

    # -- before anything is imported -----------------------------------------------------------------------------------

    def block(self, disabled: Collection[str]) -> None:
        """Mark plugins that must never be imported, by entry-point or distribution name."""
        for wanted in disabled:
            hit = [
                p
                for p in self.plugins
                if canonical(wanted) in (canonical(p.entry.name), canonical(p.entry.distribution))
            ]
            for plugin in hit:
                remedy = f"to allow it, drop --no-plugin {wanted} or take it out of FULMEN_PLUGINS_DISABLED"
                plugin.fault = Standing("blocked", f"disabled by the name {wanted}", remedy)
            if not hit:
                near = closest(
                    wanted, {p.entry.name for p in self.plugins} | {p.entry.distribution for p in self.plugins}
                )
                hint = f"; did you mean {near}?" if near else ""
                log.warning("no plugin is called %s, so nothing was disabled by that name%s", wanted, hint)

    def check_declarations(self, reserved: Collection[str]) -> None:
        """Find what metadata alone show: foreign generations, unknown groups, reserved verbs, names claimed twice."""
        claims: dict[tuple[str, str], list[Plugin]] = {}
        for plugin in self.plugins:
            if plugin.given or plugin.fault:
                continue
            if fault := check_declaration(plugin.entry):
                self._note(plugin, fault)
            elif plugin.entry.kind == "command" and plugin.entry.name in reserved:
                remedy = f"pip uninstall {plugin.entry.distribution}, or ask its author to rename the verb"
                self._note(plugin, Standing("conflict", f"the verb {plugin.entry.name} is built in", remedy))
            else:
                claims.setdefault((plugin.entry.group, plugin.entry.name), []).append(plugin)
        for (group, name), claimants in claims.items():
            if len(claimants) > 1:
                fault = _conflict(f"the name {name} in {group}", claimants)
                for plugin in claimants:
                    self._note(plugin, fault)

    # -- loading -------------------------------------------------------------------------------------------------------

    def load(self, plugins: Iterable[Plugin]) -> list[Plugin]:
        """Load what is not loaded yet and return those that can be used.

        Raises:
            PluginError: a plugin that the user named as a file or module is broken.
        """
        usable = []
        with self.lock:
            for plugin in plugins:
                if not plugin.loaded and not plugin.fault:
                    self._load_one(plugin)
                if plugin.loaded and not plugin.fault:
                    usable.append(plugin)
                elif plugin.given and plugin.fault and plugin.fault.state != "blocked":
                    raise unusable("plugin", plugin.entry.name, plugin, plugin.fault)
        return usable

    def _load_one(self, plugin: Plugin) -> None:
        known = self._by_value.get(plugin.entry.value)  # two entry points may name one module: it is loaded once
        if known is None:
            try:
                known = plugin.load()
            except LoadFault as error:
                known = error.fault
            self._by_value[plugin.entry.value] = known
        if isinstance(known, Standing):
            self._note(plugin, known)
        elif not plugin.given and (fault := check_group(plugin.entry, known)):
            self._note(plugin, fault)
        else:
            plugin.loaded = known

    def describe(self, plugins: Iterable[Plugin], hook: str) -> list[Found]:
        """Return what the plugins register under a hook; one that gets it wrong is recorded and left out."""
        found: list[Found] = []
        seen: set[int] = set()
        for plugin in self.load(plugins):
            if plugin.loaded is None or id(plugin.loaded) in seen:
                continue
            seen.add(id(plugin.loaded))
            try:
                found.extend(Found(info, plugin) for info in plugin.loaded.describe(hook))
            except LoadFault as error:
                self._note(plugin, error.fault)
        return found

    def _note(self, plugin: Plugin, fault: Standing) -> None:
        """Record a fault; raise it when strict."""
        plugin.fault = fault
        if self.strict:
            raise unusable("plugin", plugin.entry.name, plugin, fault)

    # -- looking up ----------------------------------------------------------------------------------------------------

    def find(self, hook: str, name: str) -> Found:
        """Find one descriptor by name: first in the plugins of that name, then, verbs excepted, in the whole group.

        Raises:
            PluginError: there is none, or its plugin is broken, blocked or in conflict.
        """
        noun = NOUNS[hook]
        with self.lock:
            group = self._group(hook)
            near = [plugin for plugin in group if plugin.given or plugin.entry.name == name]
            for searched in (near, group) if hook != "fulmen_commands" else (near,):
                found = [found for found in self.describe(searched, hook) if found.info.name == name]
                if len(found) > 1:
                    raise unusable(noun, name, found[0].plugin, self._clash(f"the {noun} {name}", found))
                if found:
                    return found[0]
                for plugin in searched:
                    if plugin.fault and plugin.entry.name == name:
                        raise unusable(noun, name, plugin, plugin.fault)
            raise self._unknown(hook, name, group)

    def find_all(self, hook: str) -> tuple[list[Found], list[PluginRecord]]:
        """Return every descriptor whose name one plugin alone claims, and the records of whatever cannot be used."""
        with self.lock:
            group = self._group(hook)
            by_name: dict[str, list[Found]] = {}
            for found in self.describe(group, hook):
                by_name.setdefault(found.info.name, []).append(found)
            unusable_ones = [plugin.record() for plugin in group if plugin.fault]
            for name, claimants in by_name.items():
                if len(claimants) > 1:
                    self._clash(f"the {NOUNS[hook]} {name}", claimants)
                    unusable_ones += [replace(one.plugin.record(), name=name, kind=NOUNS[hook]) for one in claimants]
            return [claimants[0] for claimants in by_name.values() if len(claimants) == 1], unusable_ones

    def _group(self, hook: str) -> list[Plugin]:
        """The plugins that may implement a registration hook: those of its group, and those the user named."""
        group = next(group for group in GROUPS if hook in hooks_of(group))
        return [plugin for plugin in self.plugins if plugin.given or plugin.entry.group == group]

    def _clash(self, what: str, found: Sequence[Found]) -> Standing:
        claimants = [one.plugin for one in found]
        fault = _conflict(what, claimants)
        for plugin in claimants:
            plugin.clash = fault
        if self.strict:
            raise unusable("plugin", claimants[0].entry.name, claimants[0], fault)
        return fault

    def _unknown(self, hook: str, name: str, group: Sequence[Plugin]) -> PluginError:
        noun = NOUNS[hook]
        known = {found.info.name for found in self.describe([p for p in group if p.loaded], hook)}
        if hook == "fulmen_commands":
            known |= {plugin.entry.name for plugin in group if not plugin.given}
        remedy = remedy_for_unknown(name, known, kind=f"installed {noun}s")
        if not known and hook in FIRST_OF_ITS_KIND:
            remedy = f"no {noun} is installed; {FIRST_OF_ITS_KIND[hook]}"
        faulty = [f"{p.entry.name} ({p.entry.origin}): {p.fault.state}: {p.fault.reason}" for p in group if p.fault]
        return PluginError(
            f"unknown {noun} {name!r}",
            remedy="; ".join([remedy, *(["not usable: " + "; ".join(faulty)] if faulty else [])]),
        )


def unusable(noun: str, name: str, plugin: Plugin, fault: Standing) -> PluginError:
    """The error for something selected that cannot be used: what, whose, why, and the command that mends it."""
    origin = "" if plugin.entry.name == plugin.entry.distribution else f" of {plugin.entry.origin}"
    error = PluginError(
        f"the {noun} {name!r}{origin} cannot be used: {fault.state}: {fault.reason}", remedy=fault.remedy
    )
    error.__cause__ = fault.cause
    return error


def _conflict(what: str, claimants: Sequence[Plugin]) -> Standing:
    whose = " and ".join(sorted({plugin.entry.origin for plugin in claimants}))
    last = claimants[-1].entry.distribution
    return Standing("conflict", f"{what} is claimed by {whose}", f"pip uninstall {last}, or pass --no-plugin {last}")
