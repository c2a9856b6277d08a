"""`fulmen backends`: probes every backend and says which can be used here, and why the others cannot.

`fulmen backends explain --model DIR` says which of them can train or serve what is in DIR.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.artefacts import MANIFEST_FILE, is_artefact
from fulmen_core.cli import arguments, context
from fulmen_core.cli.output import print_json, print_table
from fulmen_core.cli.plugins import show
from fulmen_core.errors import UserError
from fulmen_core.files import read_json
from fulmen_core.plugin_records import PluginRecord

_NONE = "No backend is installed: pip install fulmen-backend-cpu"


def run(argv: Sequence[str]) -> int:
    """List the backends by falling priority; ``--json`` prints a list of objects."""
    if argv and argv[0] == "explain":
        return _explain(argv[1:])
    parser = arguments.parser("fulmen backends", "probe the backends and say which can be used", recipe=False)
    parser.epilog = "`fulmen backends explain --model DIR` says which of them can train or serve a model, and why not."
    args = parser.parse_args(argv)
    show(context.registry().backend_records(), as_json=args.json, empty=_NONE)
    return 0


def formats_of(directory: Path) -> list[str]:
    """Return the artefact formats that a directory holds, in `Capabilities.formats`'s words.

    Raises:
        UserError: it is no directory, or holds none.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", remedy="name a model directory")
    checkpoint = (directory / "config.json").exists() and any(directory.glob("*.safetensors"))
    formats = ["checkpoint"] if checkpoint else []
    if is_artefact(directory):
        manifest = read_json(directory / MANIFEST_FILE, "artefact's manifest")
        formats.append(str(manifest.get("format", "unknown")) if isinstance(manifest, dict) else "unknown")
    if not formats:
        remedy = f"a checkpoint has config.json and model.safetensors, an exported artefact {MANIFEST_FILE}"
        raise UserError(f"no model in {directory}", remedy=remedy)
    return formats


def _explain(argv: Sequence[str]) -> int:
    parser = arguments.parser(
        "fulmen backends explain", "say which backends can run a model, and why not", recipe=False
    )
    parser.add_argument("--model", type=Path, required=True, help="a model directory or an exported artefact")
    args = parser.parse_args(argv)
    formats = formats_of(args.model)
    rows = [_verdict(record, formats) for record in context.registry().backend_records()]
    if args.json:
        print_json(rows)
    else:
        columns = ("name", "serves", "trains", "why")
        print_table(columns, ([str(row[column]) for column in columns] for row in rows), empty=_NONE)
    return 0


def _verdict(record: PluginRecord, formats: Sequence[str]) -> dict[str, object]:
    """What one backend can do with an artefact that is there in these formats."""
    verdict: dict[str, object] = {"name": record.name, "formats": list(formats), "serves": "no", "trains": "no"}
    if record.state != "active":
        return {**verdict, "why": f"{record.state}: {record.reason}"}
    can = context.registry().backend(record.name).capabilities()
    shared = [name for name in formats if name in can.formats]
    why = f"it runs {' and '.join(can.formats) or 'nothing'}, this is {' and '.join(formats)}"
    if can.serve and shared:
        quantized = [f"{name} weights" for name in can.quantizations]
        verdict["serves"], why = ", ".join([*can.serve_dtypes, *quantized]), f"from {' or '.join(shared)}"
    elif not can.serve:
        why = "it does not serve"
    if can.train and "checkpoint" in formats:
        verdict["trains"] = ", ".join(can.train_dtypes)
    return {**verdict, "why": why}
