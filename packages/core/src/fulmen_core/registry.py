"""The one way by which things arrive that core does not import: backends, exporters, guards, detectors, sources, verbs.

`Registry.discover` reads entry-point *names* and imports nothing. What the user disabled is dropped by name before it
could be loaded. A plugin is imported when something of it is first needed, once, and a broken one stops only those who
selected it:

* installed, not selected, broken: nothing is imported; `fulmen doctor` reports it;
* selected and broken, unavailable, blocked or in conflict: `PluginError` with name, distribution, version, cause and
the command
  that mends it;
* backend ``auto``: by priority, and each rejected one is remembered with its reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fulmen_core.descriptors import BackendInfo, DetectorInfo, GuardInfo, Loader, ToolInfo, resolve
from fulmen_core.entry_points import read_entries
from fulmen_core.errors import PluginError, UserError
from fulmen_core.plugin_loader import describe_exception, event_hooks, load_entry, load_file, load_module, probe
from fulmen_core.plugin_records import Entry, PluginRecord, Standing
from fulmen_core.plugin_table import FIRST_OF_ITS_KIND, Found, Plugin, PluginTable, unusable

if TYPE_CHECKING:
    from fulmen_core.backend import Backend, Exporter
    from fulmen_core.benchmark import Benchmark
    from fulmen_core.formats.foreign import ForeignCheckpoint
    from fulmen_core.guard import Guard
    from fulmen_core.tool import Tool

log = logging.getLogger(__name__)

#: A listener is no longer called after this many faults.
EVENT_FAULTS = 3


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """What ``auto`` chose, and every backend it passed over, with the reason."""

    chosen: PluginRecord
    rejected: tuple[PluginRecord, ...]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What `Registry.discover` was told: enough for another process to discover the same plugins."""

    disabled: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    strict: bool = False

    def repeat(self) -> Registry:
        """Discover again. Raises as `Registry.discover`."""
        return Registry.discover(self.disabled, self.files, self.strict)


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """A checkpoint format: its name, and how a file or folder in it is read."""

    name: str
    read: Callable[[Path], ForeignCheckpoint]


class Registry:
    """Every plugin, and typed access to what they bring. Made by `discover` or, in tests, by `of`. Thread-safe."""

    def __init__(self, plugins: Sequence[Plugin], *, strict: bool = False) -> None:
        self._table = PluginTable(plugins, strict=strict)
        self._probed: dict[str, Standing] = {}
        self.backend_choice: BackendChoice | None = None
        self.discovery: Discovery | None = None  # None if it was made of given modules

    @classmethod
    def discover(
        cls,
        disabled: Collection[str] = (),
        files: Iterable[Path | str] = (),
        strict: bool = False,
        *,
        reserved: Collection[str] = (),
    ) -> Registry:
        """Read the installed entry points; import nothing.

        Args:
            disabled: plugins never to import, by entry-point name or by distribution name.
            files: single-file plugins. They are loaded when first something is needed, and a broken one is an error.
            strict: raise `PluginError` at once for every fault that would otherwise only be recorded.
            reserved: verbs that are built in, so that no plugin may bring them.

        Raises:
            UserError: a plugin file is missing.
            PluginError: strict, and an entry point is at fault.
        """
        plugins = [Plugin(entry, partial(load_entry, entry)) for entry in read_entries()]
        paths = tuple(map(Path, files))
        for file in paths:
            if not file.is_file():
                raise UserError(f"there is no plugin file {file}", remedy="check the path")
            entry = Entry(file.stem, "file", str(file), str(file), "")
            plugins.append(Plugin(entry, partial(load_file, file), given=True))
        registry = cls(plugins, strict=strict)
        registry.discovery = Discovery(tuple(disabled), tuple(path.absolute() for path in paths), strict)
        registry._table.block(disabled)
        registry._table.check_declarations(reserved)
        return registry

    @classmethod
    def of(cls, *plugin_modules: ModuleType | str) -> Registry:
        """Make a strict registry of exactly these modules, each a module object or its dotted name. For tests.

        Raises:
            PluginError: one of them is broken.
        """
        plugins = []
        for module in plugin_modules:
            name = module if isinstance(module, str) else module.__name__
            plugins.append(Plugin(Entry(name, "module", name, name, ""), partial(load_module, module), given=True))
        registry = cls(plugins, strict=True)
        registry._table.load(registry._table.plugins)
        return registry

    # -- backends and exporters ----------------------------------------------------------------------------------------

    def backend(self, name: str = "auto") -> Backend:
        """Make the backend called `name`, or with ``"auto"`` the available one of highest priority.

        After ``"auto"``, `backend_choice` says what was chosen and why the others were not; the same is logged.

        Raises:
            PluginError: it is unknown, broken, unavailable, blocked or in conflict; with ``"auto"``, none is available.
        """
        if name != "auto":
            return self._make_backend(self._table.find("fulmen_backends", name))
        candidates, rejected = self._backends()
        for candidate in candidates:
            try:
                backend = self._make_backend(candidate)
            except UserError as error:
                standing = self._probe(candidate)
                if standing.state == "active":  # its probe was too hopeful
                    standing = Standing("failed", str(error), candidate.plugin.remedy, error)
                rejected.append(_record(candidate, standing))
                continue
            self.backend_choice = BackendChoice(_record(candidate, self._probe(candidate)), tuple(rejected))
            self._log_choice(self.backend_choice)
            return backend
        if not rejected:
            raise PluginError("no backend is installed", remedy=FIRST_OF_ITS_KIND["fulmen_backends"])
        reasons = "; ".join(f"{r.name} of {r.distribution} {r.version}: {r.state}: {r.reason}" for r in rejected)
        raise PluginError(f"no backend can be used ({reasons})", remedy="`fulmen doctor` says more about each")

    def _log_choice(self, choice: BackendChoice) -> None:
        for one in choice.rejected:
            log.warning("passing over the backend %s (%s): %s: %s", one.name, one.distribution, one.state, one.reason)
        chosen = choice.chosen
        log.info("using the backend %s (%s %s)", chosen.name, chosen.distribution, chosen.version)

    def backend_infos(self) -> list[BackendInfo]:
        """Return every backend that can be described, by falling priority. `backend_records` has broken ones too."""
        return [found.info for found in self._backends()[0]]

    def backend_records(self) -> list[PluginRecord]:
        """Probe every backend and return how each stands, the usable ones first by falling priority, and why."""
        candidates, rejected = self._backends()
        return [_record(candidate, self._probe(candidate)) for candidate in candidates] + rejected

    def exporter(self, name: str) -> Exporter:
        """Make the exporter of the artefact format `name`.

        Raises:
            PluginError: it is unknown, broken, unavailable, blocked or in conflict.
        """
        found = self._table.find("fulmen_exporters", name)
        self._require_available(found)
        exporter: Exporter = self._run(found, partial(_make, found.info.load))
        return exporter

    def _backends(self) -> tuple[list[Found], list[PluginRecord]]:
        found, rejected = self._table.find_all("fulmen_backends")
        return sorted(found, key=lambda one: (-one.info.priority, one.info.name)), rejected

    def _make_backend(self, found: Found) -> Backend:
        self._require_available(found)
        backend: Backend = self._run(found, partial(_make, found.info.load))
        return backend

    def _probe(self, found: Found) -> Standing:
        """Ask once per registry whether it can be used here."""
        key = f"{found.noun} {found.info.name}"
        if key not in self._probed:
            self._probed[key] = probe(found.info, found.plugin.remedy)
        return self._probed[key]

    def _require_available(self, found: Found) -> None:
        standing = self._probe(found)
        if standing.state != "active":
            raise unusable(found.noun, found.info.name, found.plugin, standing)

    # -- checkpoint formats --------------------------------------------------------------------------------------------

    def checkpoint_format(self, name: str) -> CheckpointFormat:
        """Return the checkpoint format called `name`. Raises `PluginError` as `exporter` does."""
        return self._format(self._table.find("fulmen_checkpoint_formats", name))

    def checkpoint_format_of(self, path: Path) -> CheckpointFormat:
        """Return the first format, by name, that `path` is in.

        Raises:
            UserError: it is in none; names those that there are.
            PluginError: a plugin's test of the path is broken.
        """
        found, _ = self._table.find_all("fulmen_checkpoint_formats")
        for one in sorted(found, key=lambda one: str(one.info.name)):
            if self._run(one, partial(_make, one.info.matches, path)):
                return self._format(one)
        if not found:
            raise PluginError(
                "no checkpoint format is installed", remedy=FIRST_OF_ITS_KIND["fulmen_checkpoint_formats"]
            )
        known = "; ".join(f"{one.info.name}: {one.info.summary}" for one in found)
        raise UserError(f"{path} is in no checkpoint format that is known", remedy=f"known are {known}")

    def _format(self, found: Found) -> CheckpointFormat:
        def read(path: Path) -> ForeignCheckpoint:
            checkpoint: ForeignCheckpoint = self._run(found, partial(_make, found.info.load, path))
            return checkpoint

        return CheckpointFormat(found.info.name, read)

    # -- RAISE ---------------------------------------------------------------------------------------------------------

    def guard(self, name: str = "raise", policy: Path | None = None) -> Guard:
        """Make a guard under a policy file, or under its own default policy.

        Raises:
            PluginError: it is unknown, broken, blocked or in conflict. Do not go on without it.
            UserError: whatever the guard finds wrong with the policy.
        """
        found = self._table.find("fulmen_guards", name)
        info: GuardInfo = found.info
        guard: Guard = self._run(found, partial(_make, info.load, policy, self))
        return guard

    def detector_info(self, name: str) -> DetectorInfo:
        """Return the description of a RAISE detector. Raises `PluginError` as `guard` does."""
        info: DetectorInfo = self._table.find("fulmen_raise_detectors", name).info
        return info

    def detector(self, name: str, settings: Mapping[str, object]) -> Any:
        """Make a RAISE detector with its table of settings. Raises `PluginError` as `guard` does."""
        found = self._table.find("fulmen_raise_detectors", name)
        return self._run(found, partial(_make, found.info.load, settings))

    # -- tools ---------------------------------------------------------------------------------------------------------

    def tool_info(self, name: str) -> ToolInfo:
        """Return the description of a tool. Raises `PluginError` as `guard` does."""
        info: ToolInfo = self._table.find("fulmen_tools", name).info
        return info

    def tool(self, name: str, settings: Mapping[str, object]) -> Tool:
        """Make a tool with its table of settings.

        Raises:
            PluginError: it is unknown, broken, blocked or in conflict.
            UserError: whatever the tool finds wrong with its settings.
        """
        found = self._table.find("fulmen_tools", name)
        tool: Tool = self._run(found, partial(_make, found.info.load, settings))
        return tool

    # -- data, training, commands --------------------------------------------------------------------------------------

    def source(self, name: str) -> Callable[..., Iterator[Mapping[str, object]]]:
        """Return the opener of a source: ``open(**settings)`` yields documents or dialogues. Raises `PluginError`."""
        opener: Callable[..., Iterator[Mapping[str, object]]] = self._resolved("fulmen_data_sources", name)
        return opener

    def verifier(self, name: str) -> Callable[[str, Mapping[str, object]], float]:
        """Return a verifier: ``score(answer, item)`` in [0, 1]. Raises `PluginError`."""
        score: Callable[[str, Mapping[str, object]], float] = self._resolved("fulmen_verifiers", name)
        return score

    def tracker(self, name: str) -> Callable[..., Any]:
        """Return the opener of a tracker: ``open(run, stage)``. Raises `PluginError`."""
        opener: Callable[..., Any] = self._resolved("fulmen_trackers", name)
        return opener

    def benchmark(self, name: str, settings: Mapping[str, object]) -> Benchmark:
        """Make a benchmark with its table of settings.

        Raises:
            PluginError: it is unknown, broken, blocked or in conflict.
            UserError: whatever the benchmark finds wrong with its settings.
        """
        found = self._table.find("fulmen_benchmarks", name)
        benchmark: Benchmark = self._run(found, partial(_make, found.info.load, settings))
        return benchmark

    def command(self, name: str) -> Callable[[Sequence[str]], int]:
        """Return ``run(argv) -> int`` of a verb, importing only the plugin whose entry point has that name.

        Raises:
            PluginError: it is unknown, broken, blocked or in conflict.
        """
        run: Callable[[Sequence[str]], int] = self._resolved("fulmen_commands", name)
        return run

    def has_command(self, name: str) -> bool:
        """Whether an entry point is called `name`, or a plugin file brings that verb. Imports nothing installed."""
        table = self._table
        if any(plugin.entry.kind == "command" and plugin.entry.name == name for plugin in table.plugins):
            return True
        given = [plugin for plugin in table.plugins if plugin.given]
        return any(found.info.name == name for found in table.describe(given, "fulmen_commands"))

    def _resolved(self, hook: str, name: str) -> Any:
        found = self._table.find(hook, name)
        return self._run(found, partial(resolve, found.info.load))

    def _run(self, found: Found, action: Callable[[], Any]) -> Any:
        """Run a plugin's loader. A `UserError` comes through; anything else that it raises is the plugin's fault."""
        try:
            return action()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            fault = Standing("failed", f"its loader raised {describe_exception(error)}", found.plugin.remedy, error)
            raise unusable(found.noun, found.info.name, found.plugin, fault) from error

    # -- events --------------------------------------------------------------------------------------------------------

    def announce(self, hook_name: str, **arguments: Any) -> None:
        """Tell every plugin in use, and every listener of ``fulmen.events.v1``, that something happened.

        A listener that raises is logged with its name and no longer called after three faults; the caller never
        notices.

        Raises:
            PluginError: only when strict.
        """
        if hook_name not in event_hooks():
            raise ValueError(f"{hook_name} is no event; events: {', '.join(sorted(event_hooks()))}")
        table = self._table
        with table.lock:
            table.load(plugin for plugin in table.plugins if plugin.given or plugin.entry.kind == "event")
            listeners: dict[
                int, Plugin
            ] = {}  # one module may stand behind several entry points; it hears an event once
            for plugin in table.plugins:
                if plugin.loaded and hook_name in plugin.loaded.hooks and not plugin.fault:
                    listeners.setdefault(id(plugin.loaded), plugin)
        for plugin in listeners.values():
            if plugin.event_faults < EVENT_FAULTS:
                self._tell(plugin, hook_name, arguments)

    def _tell(self, plugin: Plugin, hook_name: str, arguments: Mapping[str, Any]) -> None:
        who = f"the plugin {plugin.entry.name} ({plugin.entry.origin})"
        try:
            if plugin.loaded:
                plugin.loaded.call(hook_name, **arguments)
        except Exception as error:
            if self._table.strict:
                raise PluginError(f"{hook_name} of {who} raised {describe_exception(error)}") from error
            plugin.event_faults += 1
            log.warning(
                "%s of %s raised %s",
                hook_name,
                who,
                describe_exception(error),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
            if plugin.event_faults == EVENT_FAULTS:
                log.warning("%s hears no more events after %d faults", who, EVENT_FAULTS)

    # -- what there is -------------------------------------------------------------------------------------------------

    def records(self) -> list[PluginRecord]:
        """Return how every plugin stands now, importing none: one record per entry point, file or module."""
        return sorted(
            (plugin.record() for plugin in self._table.plugins), key=lambda record: (record.kind, record.name)
        )

    def origin(self, hook: str, name: str) -> Entry:
        """Return the entry point behind what is called `name` under a registration hook, e.g. ``"fulmen_backends"``.

        Raises:
            PluginError: it is unknown, broken, blocked or in conflict.
        """
        return self._table.find(hook, name).plugin.entry

    def active_versions(self) -> dict[str, str]:
        """Return distribution -> version of every plugin that was loaded, for the manifest of what they helped make."""
        return dict(sorted({p.entry.distribution: p.entry.version for p in self._table.plugins if p.loaded}.items()))

    def declared(self) -> list[tuple[Entry, PluginRecord]]:
        """Return every plugin as it was declared, with its record; for `fulmen doctor`."""
        return [(plugin.entry, plugin.record()) for plugin in self._table.plugins]


def _make(load: Loader, *arguments: object) -> Any:
    return resolve(load)(*arguments)


def _record(found: Found, standing: Standing) -> PluginRecord:
    return standing.record(found.info.name, found.noun, found.plugin.entry)
