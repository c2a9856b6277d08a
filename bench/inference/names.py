"""Options that are lists of known names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def names_of(kind: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """What argparse takes as a type: names separated by commas, each one of `known`; `kind` is what they name."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {kind} is named {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse
