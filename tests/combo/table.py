"""Write the compatibility page of the documentation from what the runs of `smoke.py` recorded.

    python tests/combo/table.py RECORDS docs/reference/compatibility.md

Each cell is one environment that was made and served a model, or in which a backend said what it lacks; a combination
that was not run is a dash. The records' own figures go into the page, so that it says when and with which versions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

PLUGIN_SETS = ("none", "pii", "attack", "all")
_NAMED = ("numpy", "pydantic", "torch", "onnxruntime", "openvino", "tensorrt-rtx", "tokenizers", "fastapi", "pluggy")

_HEAD = """# Compatibility

Written by `nox -s compatibility` from runs of `nox -s combo pythons minimums`: each cell is a fresh environment that
holds one backend and one set of RAISE plugins, installed from wheels with nothing else. *serves*: the server answered
over HTTP, the page came, an attack was blocked and an address was redacted exactly where the plugin for it was
installed. Otherwise the cell is what the backend said it lacks, and a server that was asked for it refused to start
with the same words. A dash was not run.
"""


def page(records: Sequence[Record]) -> str:
    """The page that these records support."""
    lines = [_HEAD]
    for title, chosen in _groups(records):
        backends = sorted({record["backend"] for record in chosen})
        seen = {(record["backend"], record["plugins"]): record for record in chosen}
        lines += [f"## {title}", "", f"| backend | {' | '.join(f'plugins: {name}' for name in PLUGIN_SETS)} |"]
        lines += ["|---" * (len(PLUGIN_SETS) + 1) + "|"]
        for backend in backends:
            cells = [_cell(seen.get((backend, plugins))) for plugins in PLUGIN_SETS]
            lines.append(f"| {backend} | {' | '.join(cells)} |")
        lines += ["", f"Run on {_span([record['date'] for record in chosen])} with {_versions(chosen)}.", ""]
    return "\n".join(lines)


def _groups(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    names = sorted({(record["resolution"], _minor(record["python"])) for record in records}, reverse=True)
    return [
        (
            f"Python {python}" + (", oldest versions that are allowed" if resolution == "lowest" else ""),
            [one for one in records if (one["resolution"], _minor(one["python"])) == (resolution, python)],
        )
        for resolution, python in sorted(names, key=lambda name: (name[0] == "lowest", name[1]))
    ]


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _cell(record: Record | None) -> str:
    if record is None:
        return "-"
    return "serves" if record["state"] == "active" else record["reason"].replace("|", "\\|")


def _span(dates: Sequence[str]) -> str:
    return min(dates) if min(dates) == max(dates) else f"{min(dates)} to {max(dates)}"


def _versions(records: Sequence[Record]) -> str:
    found: dict[str, set[str]] = {}
    for record in records:
        for name in _NAMED:
            if name in record["versions"]:
                found.setdefault(name, set()).add(record["versions"][name])
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in found.items())


def main(folder: Path, out: Path) -> None:
    """Read every record of `folder` and write the page."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise SystemExit(f"there is no record in {folder}: run `nox -s combo` first")
    out.write_text(page(records), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
