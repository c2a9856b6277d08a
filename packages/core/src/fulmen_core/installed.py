"""Which distributions are installed, found by name: a probe imports nothing."""

from __future__ import annotations

from fulmen_core.descriptors import Availability


def versions_of(*names: str) -> dict[str, str]:
    """The versions of those of these distributions that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def all_installed(*names: str, remedy: str) -> Availability:
    """Whether all of these distributions are; else which are not, and the command that mends it."""
    found = versions_of(*names)
    missing = [name for name in names if name not in found]
    if missing:
        return Availability(ok=False, reason=f"{', '.join(missing)} not installed: {remedy}", versions=found)
    return Availability(ok=True, versions=found)
