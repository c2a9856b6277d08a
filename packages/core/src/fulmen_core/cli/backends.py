"""`fulmen backends`: probes every backend and says which can be used here, and why the others cannot.

`fulmen backends explain --model DIR` says which of them can train or serve what is in DIR, and what of a backend would
compute it where the backend can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fulmen_core.artefacts import MANIFEST_FILE, is_artefact
from fulmen_core.backend_options import (
    Placing,
    add_backend_options,
    parse_backend_options,
    refuse_unknown_options,
)
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
    parser.add_argument("--backend", help="explain this one alone")
    add_backend_options(parser)
    args = parser.parse_args(argv)
    options = parse_backend_options(args.backend_option)
    if options and args.backend is None:
        raise UserError("--backend-option needs --backend", remedy="name the backend that has the option")
    formats = formats_of(args.model)
    if args.backend is not None:
        refuse_unknown_options(context.registry().backend(args.backend), options)
    rows = [
        _verdict(record, args.model, formats, options)
        for record in context.registry().backend_records()
        if args.backend in (None, record.name)
    ]
    if args.json:
        print_json(rows)
    else:
        columns = ("name", "serves", "trains", "why")
        print_table(columns, ([str(row[column]) for column in columns] for row in rows), empty=_NONE)
    return 0


def _verdict(
    record: PluginRecord, model: Path, formats: Sequence[str], options: Mapping[str, str]
) -> dict[str, object]:
    """What one backend can do with a model that is there in these formats."""
    verdict: dict[str, object] = {"name": record.name, "formats": list(formats), "serves": "no", "trains": "no"}
    if record.state != "active":
        return {**verdict, "why": f"{record.state}: {record.reason}"}
    backend = context.registry().backend(record.name)
    can = backend.capabilities()
    shared = [name for name in formats if name in can.formats]
    why = f"it runs {' and '.join(can.formats) or 'nothing'}, this is {' and '.join(formats)}"
    if can.serve and shared:
        quantized = [f"{name} weights" for name in can.quantizations]
        verdict["serves"], why = ", ".join([*can.serve_dtypes, *quantized]), f"from {' or '.join(shared)}"
        if isinstance(backend, Placing):
            verdict["placement"] = placed = dict(backend.placement(model, **options))
            why = "; ".join([why, *(f"{name}: {value}" for name, value in placed.items())])
    elif not can.serve:
        why = "it does not serve"
    if can.train and "checkpoint" in formats:
        verdict["trains"] = ", ".join(can.train_dtypes)
    return {**verdict, "why": why}
