"""The default policy with only some of its detectors: what a user writes who installed only some of the plugins."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files


def policy_with(detectors: Collection[str]) -> str:
    """The default policy's text without the tables of other detectors."""
    default = (files("fulmen_safety") / "data/policies/default.toml").read_text(encoding="utf-8")

    def keep(table: re.Match[str]) -> str:
        named = re.search(r'^name = "(.+)"', table[0], re.MULTILINE)
        return table[0] if named and named[1] in detectors else ""

    kept = re.sub(r"\[\[detectors\]\]\n(?:(?!\[).*\n)*", keep, default)
    return kept if "[[detectors]]" in kept else "detectors = []\n" + kept
