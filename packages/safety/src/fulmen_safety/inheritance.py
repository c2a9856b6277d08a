"""What a policy is written over: a profile that ships with the package, or another file.

``extends = "strict"`` takes everything from that profile; what the file says itself goes over it: tables key by key,
detectors by name, all other values whole. A detector that is new comes last; one with ``enabled = false`` is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.recipes import read_toml
from fulmen_core.suggestions import remedy_for_unknown

#: The profiles of the package, and for whom they are.
PROFILES = {
    "default": "an assistant for the public",
    "strict": "where harm weighs more than an answer: minors, health, regulated services",
    "open": "research, security and creative work by adults: only the gravest is blocked",
}
EXTENDS = "extends"


def profile_source(name: str = "default") -> str:
    """Return a profile as TOML, comments included: what a policy of one's own starts from, or extends.

    Raises:
        UserError: there is no such profile.
    """
    if name not in PROFILES:
        raise UserError(f"unknown profile {name!r}", remedy=remedy_for_unknown(name, PROFILES, kind="profiles"))
    return (resources.files("fulmen_safety") / f"data/policies/{name}.toml").read_text("utf-8")


def whole(table: Mapping[str, Any], where: str, folder: Path, seen: Sequence[Path] = ()) -> Mapping[str, Any]:
    """Return the table of a policy over what it extends.

    Args:
        table: as written.
        where: names it in sentences.
        folder: that the files it extends are relative to.
        seen: files that extend it.

    Raises:
        UserError: it extends what is not there, no policy, or itself.
    """
    if EXTENDS not in table:
        return table
    base, own = table[EXTENDS], {key: value for key, value in table.items() if key != EXTENDS}
    if not isinstance(base, str):
        raise UserError(f"'{EXTENDS}' is no text", where=where, remedy="name a profile or a file")
    if base in PROFILES:
        return _over(whole(tomllib.loads(profile_source(base)), base, folder, seen), own)
    path = folder / base
    if path.resolve() in seen:
        raise UserError(f"the policy extends itself through {base!r}", where=where, remedy="extend a profile instead")
    if not path.is_file():
        remedy = remedy_for_unknown(base, PROFILES, kind="profiles")
        raise UserError(
            f"there is no policy {base!r} to extend", where=where, remedy=f"give a file beside it; {remedy}"
        )
    below = whole(read_toml(path, "policy"), str(path), path.parent, (*seen, path.resolve()))
    return _over(below, own)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = _over(under, value)
        elif key == "detectors" and isinstance(under, list) and isinstance(value, list):
            merged[key] = _detectors(under, value)
        else:
            merged[key] = value
    return merged


def _detectors(below: Sequence[Any], above: Sequence[Any]) -> list[Any]:
    """Entries of the same name are one; what has no name is told later, with its place."""
    merged = list(below)
    for entry in above:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        place = next((index for index, one in enumerate(below) if name is not None and one.get("name") == name), None)
        if place is None:
            merged.append(entry)
        else:
            merged[place] = _over(merged[place], entry)
    return merged
