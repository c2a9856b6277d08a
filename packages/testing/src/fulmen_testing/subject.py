"""What is held against its contract: a plugin's backend or detector, by name, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fulmen_core.hooks import HOOK_GENERATION
from fulmen_core.plugin_records import Entry
from fulmen_core.registry import Registry

Kind = Literal["backend", "detector"]

#: For each kind, in the words of `fulmen conform`: its entry-point group and the hook that registers it.
GROUPS: dict[Kind, tuple[str, str]] = {
    "backend": (f"fulmen.backends.{HOOK_GENERATION}", "fulmen_backends"),
    "detector": (f"fulmen.raise.{HOOK_GENERATION}", "fulmen_raise_detectors"),
}

#: Names of what may not be unavailable, separated by commas: FULMEN_REQUIRE=cuda,tensorrt.
REQUIRE = "FULMEN_REQUIRE"


@dataclass(frozen=True)
class Subject:
    """A backend or a detector and the registry that finds it.

    Attributes:
        name: of the backend or detector.
        registry: has its plugin.
        settings: of a detector: the table that a policy would give it.
        examples: of a detector: texts in which it must find something.
    """

    name: str
    registry: Registry
    settings: Mapping[str, object] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    @classmethod
    def of_module(
        cls,
        name: str,
        *modules: str,
        settings: Mapping[str, object] | None = None,
        examples: tuple[str, ...] = (),
    ) -> Subject:
        """Take `name` from plugin modules that can be imported, installed or not.

        Raises:
            PluginError: a module is no sound plugin.
        """
        return cls(name, Registry.of(*modules), settings or {}, examples)

    @classmethod
    def installed(
        cls,
        name: str,
        registry: Registry | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        examples: tuple[str, ...] = (),
    ) -> Subject:
        """Take `name` from the installed plugins, or from a registry of some of them."""
        return cls(name, registry or Registry.discover(), settings or {}, examples)

    def entry(self, kind: Kind) -> Entry:
        """Return the entry point behind it.

        Raises:
            PluginError: there is none of that kind and name, or its plugin cannot be used.
        """
        group, hook = GROUPS[kind]
        entry = self.registry.origin(hook, self.name)
        return replace(entry, group=group) if entry.group == "module" else entry

    def required(self) -> bool:
        """Whether FULMEN_REQUIRE names it: then nothing is skipped because it is unavailable here."""
        return self.name in [name.strip() for name in os.environ.get(REQUIRE, "").split(",")]
