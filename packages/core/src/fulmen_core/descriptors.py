"""Frozen descriptions that registration hooks return. They are data: nothing heavy is imported until `resolve`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: A callable, or ``"module:attribute"`` resolved on first use.
Loader = Callable[..., Any] | str


def resolve(loader: Loader) -> Any:
    """Return the object that `loader` names, importing its module if it is a ``"module:attribute"`` string."""
    if not isinstance(loader, str):
        return loader
    module, _, attribute = loader.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class Availability:
    """What a probe found: usable or not, why, which devices and library versions."""

    ok: bool
    reason: str = ""
    devices: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def also(self, other: Availability) -> Availability:
        """Both: usable if each is, and otherwise for the first reason that there is."""
        reason = self.reason if not self.ok else other.reason
        return Availability(
            self.ok and other.ok, reason, (*self.devices, *other.devices), {**self.versions, **other.versions}
        )


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A hardware backend: `load` resolves to a callable of no arguments that makes a `fulmen_core.backend.Backend`.

    `threads` resolves to ``run_on(threads: int | None) -> Mapping[str, Any]`` for a backend that computes on the CPU:
    it sets the threads of this process, to the number given or, for None, to the best for this machine now, and
    returns ``threads``, ``reason`` and, in JSON's types, what that rests on. Empty: there is nothing to choose.
    """

    name: str
    summary: str
    probe: Loader  # () -> Availability
    load: Loader
    priority: int = 0  # `auto` tries the highest first
    threads: Loader = ""


@dataclass(frozen=True, slots=True)
class ExporterInfo:
    """An artefact format: `load` resolves to a callable of no arguments that makes a `fulmen_core.backend.Exporter`."""

    name: str
    summary: str
    probe: Loader
    load: Loader


@dataclass(frozen=True, slots=True)
class CheckpointFormatInfo:
    """A checkpoint format of another project.

    `matches` resolves to ``matches(path: Path) -> bool``, cheap and without torch; `load` to
    ``read(path: Path) -> fulmen_core.formats.foreign.ForeignCheckpoint``.
    """

    name: str
    summary: str
    matches: Loader
    load: Loader


@dataclass(frozen=True, slots=True)
class GuardInfo:
    """A whole guard. `load` resolves to ``make(policy: Path | None, registry) -> fulmen_core.guard.Guard``."""

    name: str
    summary: str
    load: Loader


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """A RAISE detector. `load` resolves to ``make(settings: Mapping[str, object])``: a `fulmen_safety` detector."""

    name: str
    summary: str
    phases: tuple[str, ...]  # of "corpus", "reward", "input", "output"
    categories: tuple[str, ...]  # codes of the RAISE taxonomy
    languages: tuple[str, ...]
    cost: str  # "rules", "linear" or "model"
    load: Loader


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A data source. `load` resolves to ``open(**settings) -> Iterator[Mapping[str, object]]``."""

    name: str
    summary: str
    kind: str  # "documents" or "instructions"
    load: Loader


@dataclass(frozen=True, slots=True)
class VerifierInfo:
    """A verifier. `load` resolves to ``score(answer: str, item: Mapping[str, object]) -> float``."""

    name: str
    summary: str
    load: Loader


@dataclass(frozen=True, slots=True)
class TrackerInfo:
    """A tracker. `load` resolves to ``open(run: Path, stage: str)``, with ``log(step, metrics)`` and ``close()``."""

    name: str
    summary: str
    load: Loader


@dataclass(frozen=True, slots=True)
class BenchmarkInfo:
    """A benchmark. `load` resolves to ``make(settings: Mapping[str, object]) -> fulmen_core.benchmark.Benchmark``."""

    name: str
    summary: str
    languages: tuple[str, ...]  # of its questions, e.g. ("en", "zh")
    load: Loader


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A verb of the command line. `load` resolves to ``run(argv: Sequence[str]) -> int``."""

    name: str
    summary: str
    load: Loader


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A tool that a served model may call. `load` resolves to ``make(settings) -> fulmen_core.tool.Tool``.

    `settings` is the table of options that the operator gave for the tool; `make` refuses an unknown one.
    """

    name: str  # what the model calls: at most 64 letters, digits, '_' and '-'
    description: str  # what the model reads: what the tool does, and when to call it
    parameters: Mapping[str, Any]  # JSON Schema of the arguments, an object
    load: Loader
    deadline_seconds: float = 10.0  # of a call; the operator may set another
    max_result_characters: int = 8000  # a longer result is an error; the operator may set another
