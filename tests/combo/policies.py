"""The default policy with the detectors of only some plugins: what a user writes who installed no others."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files


def policy_with(plugins: Collection[str]) -> str:
    """The default policy's text without the tables of other plugins' detectors. ``toxicity`` also brings
    ``toxicity-answer``.
    """
    default = (files("fulmen_safety") / "data/policies/default.toml").read_text(encoding="utf-8")

    def keep(table: re.Match[str]) -> str:
        named = re.search(r'^name = "(.+)"', table[0], re.MULTILINE)
        return table[0] if named and named[1].removesuffix("-answer") in plugins else ""

    kept = re.sub(r"\[\[detectors\]\]\n(?:(?!\[(?!detectors\.)).*\n)*", keep, default)
    return kept if "[[detectors]]" in kept else "detectors = []\n" + kept
