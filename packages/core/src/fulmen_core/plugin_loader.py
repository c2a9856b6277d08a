"""Loads one plugin: import, registration in a pluggy manager of its own, and every check that can be made of it.

A plugin never shares a manager with another, so one that is broken can neither hide nor stop the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from fulmen_core import descriptors
from fulmen_core.hooks import GROUPS, HOOK_GENERATION, PROJECT
from fulmen_core.plugin_records import ACTIVE, Entry, Standing
from fulmen_core.suggestions import closest

#: Registration hook -> what it must return an iterable of. Every other hook is an event.
DESCRIPTORS: dict[str, type[Any]] = {
    "fulmen_backends": descriptors.BackendInfo,
    "fulmen_exporters": descriptors.ExporterInfo,
    "fulmen_checkpoint_formats": descriptors.CheckpointFormatInfo,
    "fulmen_guards": descriptors.GuardInfo,
    "fulmen_raise_detectors": descriptors.DetectorInfo,
    "fulmen_data_sources": descriptors.SourceInfo,
    "fulmen_verifiers": descriptors.VerifierInfo,
    "fulmen_trackers": descriptors.TrackerInfo,
    "fulmen_benchmarks": descriptors.BenchmarkInfo,
    "fulmen_tools": descriptors.ToolInfo,
    "fulmen_commands": descriptors.CommandInfo,
}

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class LoadFault(Exception):
    """A plugin that cannot be used, with the `Standing` that says why."""

    def __init__(self, fault: Standing) -> None:
        super().__init__(fault.reason)
        self.fault = fault


@cache
def hooks_of(group: str) -> frozenset[str]:
    """Return the names of the hooks that the spec module of an entry-point group declares."""
    specs = importlib.import_module(GROUPS[group])
    return frozenset(name for name, value in vars(specs).items() if hasattr(value, f"{PROJECT}_spec"))


@cache
def event_hooks() -> frozenset[str]:
    """Return the names of the hooks that announce."""
    return hooks_of(f"fulmen.events.{HOOK_GENERATION}")


def check_declaration(entry: Entry) -> Standing | None:
    """Return what is wrong with an entry point as far as its metadata tell, or None. Imports nothing of the plugin."""
    if entry.group not in GROUPS:
        return _unknown_group(entry)
    if EntryPoint.pattern.match(entry.value) is None:
        return Standing(
            "failed",
            f"its entry point names {entry.value!r}, which is no module",
            f"pip install --upgrade {entry.distribution}",
        )
    return None


class LoadedPlugin:
    """A plugin that passed every check. `call` runs one of its hooks; `describe` gives what it registers, checked."""

    def __init__(self, plugin: object, remedy: str) -> None:
        self.hooks: frozenset[str]
        self._remedy = remedy
        self._manager = pluggy.PluginManager(PROJECT)
        for module in GROUPS.values():
            self._manager.add_hookspecs(importlib.import_module(module))
        try:
            self._manager.register(plugin)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise LoadFault(Standing("failed", self._explain(plugin, error), remedy, error)) from error
        self.hooks = frozenset(caller.name for caller in self._manager.get_hookcallers(plugin) or ())
        if not self.hooks:
            raise LoadFault(
                Standing(
                    "failed", "it implements no hook: nothing in it is marked @hookimpl of fulmen_core.hooks", remedy
                )
            )
        self._described: dict[str, tuple[Any, ...]] = {}

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook that the plugin implements and return what it returns. What it raises comes through."""
        results = getattr(self._manager.hook, hook)(**arguments)
        return results[0] if results else None

    def describe(self, hook: str) -> tuple[Any, ...]:
        """Return the descriptors that a registration hook gives, ``()`` if the plugin does not implement it.

        Raises:
            LoadFault: the hook raises, or returns something else than descriptors with distinct, well-formed names.
        """
        if hook not in self.hooks:
            return ()
        if hook not in self._described:
            self._described[hook] = self._checked(hook)
        return self._described[hook]

    def _checked(self, hook: str) -> tuple[Any, ...]:
        expected = DESCRIPTORS[hook]
        try:
            with _off_stdout():
                result = self.call(hook)
                infos = tuple(result) if isinstance(result, Iterable) else None
        except (Exception, SystemExit) as error:
            raise LoadFault(
                Standing("failed", f"{hook} raised {describe_exception(error)}", self._remedy, error)
            ) from error
        if infos is None or not all(isinstance(info, expected) for info in infos):
            found = (
                type(result).__name__ if infos is None else ", ".join(sorted({type(info).__name__ for info in infos}))
            )
            raise LoadFault(
                Standing("failed", f"{hook} returned {found}, not a list of {expected.__name__}", self._remedy)
            )
        names = [info.name for info in infos]
        for name in names:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                reason = f"{hook} gave the name {name!r}; names are lower-case letters, digits, '.', '_' and '-'"
                raise LoadFault(Standing("failed", reason, self._remedy))
            if names.count(name) > 1:
                raise LoadFault(Standing("failed", f"{hook} gave the name {name!r} twice", self._remedy))
        return infos

    def _explain(self, plugin: object, error: pluggy.PluginValidationError) -> str:
        """Turn pluggy's report into one sentence: an unknown hook, or arguments that the hook does not have."""
        specs = {name: spec for name in _all_hooks() if (spec := getattr(self._manager.hook, name).spec)}
        for name, function in inspect.getmembers(plugin, inspect.isroutine):
            if getattr(function, f"{PROJECT}_impl", None) is None:
                continue
            if name not in specs:
                near = closest(name, specs)
                return f"it implements {name}, which is no hook" + (f"; did you mean {near}?" if near else "")
            surplus = [
                argument for argument in inspect.signature(function).parameters if argument not in specs[name].argnames
            ]
            if surplus:
                known = ", ".join(specs[name].argnames) or "none"
                return f"its {name} takes {', '.join(surplus)}; the hook's arguments are: {known}"
        return " ".join(str(error).split())


def load_entry(entry: Entry) -> LoadedPlugin:
    """Import and check the plugin that an entry point names.

    Raises:
        LoadFault: whatever is wrong with it, `SystemExit` at import included. `KeyboardInterrupt` comes through.
    """
    point = EntryPoint(entry.name, entry.value, entry.group)
    upgrade = f"pip install --upgrade {entry.distribution}"
    try:
        with _off_stdout():
            plugin = point.load()
    except ModuleNotFoundError as error:
        own = error.name is not None and (point.module == error.name or point.module.startswith(f"{error.name}."))
        if own:
            reason = f"its module {entry.value} is not there; the installed metadata are stale"
            raise LoadFault(
                Standing("failed", reason, f"pip install --force-reinstall --no-deps {entry.distribution}", error)
            ) from error
        raise LoadFault(
            Standing("failed", f"it needs the module {error.name}, which is not installed", upgrade, error)
        ) from error
    except (Exception, SystemExit) as error:
        raise LoadFault(Standing("failed", f"its import raised {describe_exception(error)}", upgrade, error)) from error
    return LoadedPlugin(plugin, upgrade)


def check_group(entry: Entry, loaded: LoadedPlugin) -> Standing | None:
    """Return a fault if a loaded plugin implements no hook of the group it is declared in."""
    expected = hooks_of(entry.group)
    if loaded.hooks & expected:
        return None
    remedy = f"pip install --upgrade {entry.distribution}"
    if loaded.hooks <= event_hooks():
        listeners = f"fulmen.events.{HOOK_GENERATION}"
        reason = f"it only listens to events, so it belongs in the group {listeners}, not in {entry.group}"
        return Standing("failed", reason, remedy)
    reason = f"it implements none of the hooks of {entry.group} ({', '.join(sorted(expected))})"
    return Standing("failed", reason, remedy)


def load_file(path: Path) -> LoadedPlugin:
    """Import and check a single-file plugin.

    Raises:
        LoadFault: whatever is wrong with it.
    """
    remedy = f"mend {path}"
    # The path's hash keeps two files of one name apart; dataclasses look their module up in sys.modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"fulmen_plugin_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadFault(Standing("failed", "it is not a Python file", "name a .py file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _off_stdout():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise LoadFault(Standing("failed", f"its import raised {describe_exception(error)}", remedy, error)) from error
    return LoadedPlugin(module, remedy)


def load_module(module: ModuleType | str) -> LoadedPlugin:
    """Check a plugin module that is given as an object or by its dotted name.

    Raises:
        LoadFault: whatever is wrong with it.
    """
    if isinstance(module, str):
        return load_entry(Entry(module, "module", module, module, ""))
    return LoadedPlugin(module, f"mend {module.__name__}")


def probe(info: Any, remedy: str) -> Standing:
    """Ask whether a described thing can be used here: active, unavailable, or failed if the probe itself is broken.

    What has no probe is active. `remedy` mends a broken probe.
    """
    if not hasattr(info, "probe"):
        return ACTIVE
    try:
        with _off_stdout():
            answer = descriptors.resolve(info.probe)()
    except (Exception, SystemExit) as error:
        return Standing("failed", f"its probe raised {describe_exception(error)}", remedy, error)
    if not isinstance(answer, descriptors.Availability):
        return Standing("failed", f"its probe returned {type(answer).__name__}, not an Availability", remedy)
    if not answer.ok:
        return Standing("unavailable", answer.reason or "its probe gives no reason", "`fulmen doctor` says more")
    facts = [*answer.devices, *(f"{name} {version}" for name, version in answer.versions.items())]
    return Standing("active", answer.reason or ", ".join(facts))


def describe_exception(error: BaseException) -> str:
    """An exception in one line, e.g. ``"ValueError: no such device"``."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _off_stdout() -> contextlib.AbstractContextManager[Any]:
    """Send what a plugin prints to stderr: on stdout it would stand among a command's result."""
    return contextlib.redirect_stdout(sys.stderr)


def _all_hooks() -> Sequence[str]:
    return sorted(set().union(*(hooks_of(group) for group in GROUPS)))


def _unknown_group(entry: Entry) -> Standing:
    base, _, generation = entry.group.rpartition(".")
    if f"{base}.{HOOK_GENERATION}" in GROUPS and re.fullmatch(r"v\d+", generation):
        older = int(generation[1:]) < int(HOOK_GENERATION[1:])
        remedy = f"pip install --upgrade {entry.distribution if older else 'fulmen-core'}"
        return Standing("failed", f"it is made for hook generation {generation}, this is {HOOK_GENERATION}", remedy)
    near = closest(entry.group, GROUPS)
    return Standing(
        "failed",
        f"this Fulmen has no entry-point group {entry.group}" + (f"; did the author mean {near}?" if near else ""),
        f"pip install --upgrade fulmen-core {entry.distribution}",
    )
