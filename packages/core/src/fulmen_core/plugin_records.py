"""What is known of each plugin: its entry point, its state, and the sentences that say what is wrong and what mends it."""

from __future__ import annotations

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

    States: ``declared`` (installed, not imported), ``blocked`` (disabled by the user, never imported), ``active`` (loaded, and
    usable where that was probed), ``unavailable`` (loaded, but its probe says no), ``failed`` (broken), ``conflict`` (two
    plugins claim the name).
    """

    name: str
    kind: str
    distribution: str
    version: str
    state: State
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """The record as ``--json`` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a plugin cannot be used, and the command or change that mends it."""

    state: State
    reason: str
    remedy: str
    cause: BaseException | None = None


def kind_of(group: str) -> str:
    """``"fulmen.backends.v1"`` -> ``"backend"``; ``"fulmen.raise.v1"`` -> ``"raise"``."""
    middle = group.split(".")[1] if group.count(".") else group
    return middle[:-1] if middle.endswith("s") else middle


def canonical(name: str) -> str:
    """A distribution or plugin name in the form in which two spellings compare equal (PEP 503)."""
    import re  # noqa: PLC0415

    return re.sub(r"[-_.]+", "-", name).lower()
