"""`fulmen runs show`: what a run made, from what, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments
from fulmen_core.cli.output import print_json
from fulmen_core.errors import UserError
from fulmen_core.run_manifest import FILE, Entry, read_manifest


def run(argv: Sequence[str]) -> int:
    """Draw the manifest of one run directory, or of every run below a folder."""
    parser = arguments.parser("fulmen runs", "show what a run made, from what, and how well", recipe=False, json=False)
    verbs = parser.add_subparsers(dest="action", required=True, metavar="show")
    show = verbs.add_parser("show", help="draw a run's manifest", description="Draw a run's manifest.")
    show.add_argument(
        "directory", type=Path, nargs="?", default=Path("runs"), help="a run, or a folder of runs; default: runs"
    )
    show.add_argument("--json", action="store_true", help="print the manifest as JSON on stdout")
    args = parser.parse_args(argv)
    found = {root: read_manifest(root) for root in _roots(args.directory)}
    if args.json:
        print_json([_as_json(root, entries) for root, entries in found.items()])
    else:
        for root, entries in found.items():
            _draw(root, entries)
    return 0


def _roots(directory: Path) -> list[Path]:
    """The run itself, or the runs directly below the folder, oldest manifest first."""
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", remedy="name a run directory")
    if (directory / FILE).exists():
        return [directory]
    roots = sorted(
        (path.parent for path in directory.glob(f"*/{FILE}")), key=lambda root: (root / FILE).stat().st_mtime
    )
    if not roots:
        raise UserError(
            f"no run in {directory}", remedy=f"a run directory holds a {FILE}; `fulmen demo` makes one in runs/demo"
        )
    return roots


def _as_json(root: Path, entries: dict[str, Entry]) -> dict[str, Any]:
    artefacts = [
        {"name": name, "path": str(root / name), "there": (root / name).exists(), **entry.model_dump()}
        for name, entry in entries.items()
    ]
    return {"run": str(root), "artefacts": artefacts}


def _draw(root: Path, entries: dict[str, Entry]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(str(root), style="bold"))
    for name, entry in entries.items():
        there = "" if (root / name).exists() else "  missing"
        facts = f"  {entry.kind}  {entry.hash[:12]}  {_duration(entry.seconds)}  {entry.finished}"
        node = tree.add(Text.assemble((name, "bold cyan"), facts, (there, "bold red")))
        if entry.inputs:
            sources = (f"{label} = {one.source} ({one.hash[:12]})" for label, one in entry.inputs.items())
            node.add(Text("from  " + ", ".join(sources), style="dim"))
        for label, value in entry.measurements.items():
            node.add(Text(f"{label}  {_measurement(value)}"))
        if entry.plugins:
            node.add(Text("with  " + ", ".join(" ".join(pair).strip() for pair in entry.plugins.items()), style="dim"))
    Console(soft_wrap=True).print(tree)


def _measurement(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 60 else f"{whole // 60} min {whole % 60} s"
