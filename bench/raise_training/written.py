"""Rows from the templates in the TOML files beside this one, each slot filled at random from a seed, and from the
requests in `requests/`, which stand as they are.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_SLOT = re.compile(r"\{(\w+)\}")
_REQUEST = re.compile(r"(?P<like>\+ )?(?:(?P<category>[a-z_]+)\| )?(?P<text>.+)")
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


def single(folder: str = "requests") -> Iterator[dict[str, Any]]:
    r"""Yield a row for each line of the files in a folder beside this file.

    A file has tables `[name]` with a weight, the category of its requests if they are harmful, and the texts, one a
    line. ``+ `` begins a line that is like the one above, e.g. its harmful counterpart: they form a group. ``code| ``
    says the category of a harmful line among others, ``\n`` in a line is a line break.
    """
    for path in sorted((Path(__file__).parent / folder).glob("*.toml")):
        for name, table in tomllib.loads(path.read_text("utf-8")).items():
            first, rows = 0, list[dict[str, Any]]()
            for place, line in enumerate(table["texts"].strip().split("\n")):
                match = _REQUEST.fullmatch(line)
                if match is None:
                    raise ValueError(f"{path.name}, [{name}]: line {place + 1} of texts is empty; remove it")
                category = match["category"] or table.get("category", "")
                made = row(match["text"].replace("\\n", "\n"), unsafe=bool(category), category=category)
                if match["like"]:
                    rows[first]["group"] = made["group"] = f"{path.stem}:{name}:{first}"
                else:
                    first = place
                rows.append({**made, "source": f"written:{path.stem}", "weight": table["weight"]})
            yield from rows


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
