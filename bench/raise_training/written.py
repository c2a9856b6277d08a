"""Rows from the templates in the TOML files beside this one, each slot filled at random from a seed."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_SLOT = re.compile(r"\{(\w+)\}")
_LICENCE = "Apache-2.0 (written for this project)"


def filled(name: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield kind, template's name and text for every group of templates in ``NAME.toml``, each text once."""
    data = dict(_tables(name))
    slots: dict[str, list[str]] = data.pop("slots")
    random_ = random.Random(f"{name}|{seed}")
    for kind, group in data.items():
        for place, template in enumerate(group["texts"]):
            seen = set()
            for _ in range(group["per"]):
                text = _filled(template, slots, random_)
                if text not in seen:
                    seen.add(text)
                    yield kind, f"{name}:{kind}:{place}", text


def drawn(name: str, kind: str, count: int, random_: random.Random) -> list[str]:
    """Return `count` different orders of a kind in ``NAME.toml``, filled."""
    data = _tables(name)
    return [_filled(order, data["slots"], random_) for order in random_.sample(data[kind]["orders"], count)]


def row(text: str, *, unsafe: bool, category: object = "", group: str = "", weight: float = 1.0) -> dict[str, Any]:
    """Return a written text as a row of `fulmen raise train`."""
    made: dict[str, Any] = {"text": text, "label": "unsafe" if unsafe else "safe", "weight": weight, "group": group}
    return {**made, "category": category, "source": "written:" + group.split(":")[0], "licence": _LICENCE}


def labels(name: str) -> dict[str, str]:
    """Return kind -> label for a file whose groups say theirs."""
    return {kind: group["label"] for kind, group in _tables(name).items() if kind != "slots"}


def _filled(template: str, slots: dict[str, list[str]], random_: random.Random) -> str:
    return _SLOT.sub(lambda match: random_.choice(slots[match[1]]), template)


@cache
def _tables(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text("utf-8"))
