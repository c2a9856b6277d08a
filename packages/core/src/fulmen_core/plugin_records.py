"""What is known of each plugin: its entry point, its state, what is wrong with it and what mends it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["declared", "blocked", "active", "unavailable", "failed", "conflict"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point as the installed metadata declare it; nothing of it has been imported."""

    name: str
    group: str  # "fulmen.backends.v1"
    value: str  # "package.plugin" or "package.plugin:object"
    distribution: str
    version: str

    @property
    def kind(self) -> str:
        """The kind in the singular, e.g. ``"backend"`` for ``"fulmen.backends.v1"``."""
        return kind_of(self.group)

    @property
    def origin(self) -> str:
        """Distribution and version, as sentences name them."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One line of `fulmen plugins` or `fulmen backends`: what it is, who brings it, how it stands and why.

    States: ``declared`` (installed, not imported), ``blocked`` (disabled by the user, never imported), ``active``
    (loaded, and usable where that was probed), ``unavailable`` (loaded, but its probe says no), ``failed`` (broken),
    ``conflict`` (two plugins claim the name).
    """

    name: str
    kind: str
    distribution: str
    version: str
    state: State
    reason: str = ""
    remedy: str = ""  # the command or change that mends it

    def as_json(self) -> dict[str, Any]:
        """The record as ``--json`` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Standing:
    """How something stands: its state, why, and the command or change that mends it."""

    state: State
    reason: str = ""
    remedy: str = ""
    cause: BaseException | None = None

    def record(self, name: str, kind: str, entry: Entry) -> PluginRecord:
        """The record of something called `name` that `entry` brings and that stands so."""
        return PluginRecord(name, kind, entry.distribution, entry.version, self.state, self.reason, self.remedy)


DECLARED = Standing("declared")
ACTIVE = Standing("active")


def kind_of(group: str) -> str:
    """``"fulmen.backends.v1"`` -> ``"backend"``; ``"fulmen.raise.v1"`` -> ``"raise"``."""
    middle = group.split(".")[1] if group.count(".") else group
    return middle[:-1] if middle.endswith("s") else middle


def canonical(name: str) -> str:
    """A distribution or plugin name in the form in which two spellings compare equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
