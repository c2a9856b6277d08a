"""Reads the entry points of every ``fulmen.*`` group from the installed metadata, without importing any plugin."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib import metadata

from fulmen_core.plugin_records import Entry, canonical

log = logging.getLogger(__name__)

PREFIX = "fulmen."


def read_entries(path: Sequence[str] | None = None) -> list[Entry]:
    """Return every entry point of a ``fulmen.*`` group on `path` (default ``sys.path``), sorted by group and name.

    A distribution found twice counts where it is first found, as for `import`. Damaged metadata are logged.
    """
    seen: set[str] = set()
    entries: list[Entry] = []
    for distribution in metadata.distributions() if path is None else metadata.distributions(path=list(path)):
        try:
            # Most distributions have none of ours; looking at the text first saves parsing their metadata.
            if f"[{PREFIX}" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name, version = _identity(distribution)
            found = list(_entries(distribution, name, version))
        except (OSError, ValueError, TypeError) as error:  # what importlib.metadata makes of damaged files
            log.warning("passing over the damaged metadata in %s: %s", getattr(distribution, "_path", "?"), error)
            continue
        if canonical(name) not in seen:
            seen.add(canonical(name))
            entries.extend(found)
    return sorted(entries, key=lambda entry: (entry.group, entry.name, entry.distribution))


def _entries(distribution: metadata.Distribution, name: str, version: str) -> Iterator[Entry]:
    for point in distribution.entry_points:
        if point.group.startswith(PREFIX):
            yield Entry(point.name, point.group, point.value, name, version)


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    """Name and version, from METADATA or, where that is missing, from the folder's own name."""
    fields = distribution.metadata
    found = {field: fields[field] for field in fields}  # a METADATA file may be missing or lack fields
    name, version = found.get("Name", ""), found.get("Version", "")
    folder = getattr(distribution, "_path", None)
    stem = getattr(folder, "stem", "unknown")
    return name or stem.split("-")[0], version or stem.partition("-")[2] or "unknown"
