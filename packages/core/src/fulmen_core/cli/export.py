"""`fulmen export`: writes an artefact with whichever exporter brings the format, and compares it with the model."""

from __future__ import annotations

import time
from argparse import BooleanOptionalAction
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fulmen_core.artefacts import check_replaceable
from fulmen_core.cli import arguments, context
from fulmen_core.cli.model_source import model_directory
from fulmen_core.cli.output import note, print_json
from fulmen_core.errors import UserError

#: Logits of an artefact in float32 may differ from the checkpoint's by this much.
TOLERANCE = 1e-4


def run(argv: Sequence[str]) -> int:
    """Export, announce, compare, and print a summary. Returns 1 if the artefact computes something else."""
    parser = arguments.parser("fulmen export", "write a deployable artefact and compare it", recipe=False)
    parser.add_argument("--to", required=True, metavar="FORMAT", help="format of the artefact, e.g. onnx")
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="model folder to export")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write or replace")
    parser.add_argument(
        "--check", action=BooleanOptionalAction, default=True, help="compare logits and greedy answers with the model"
    )
    args = parser.parse_args(argv)
    args.model = model_directory(args.model)
    if not args.model.is_dir():
        raise UserError(f"there is no model folder {args.model}", remedy="check --model")
    check_replaceable(args.out)

    exporter = context.registry().exporter(args.to)
    started = time.monotonic()
    note(f"exporting {args.model} to {args.to} ...")
    manifest = exporter.export(args.model, args.out)
    context.registry().announce("fulmen_export_done", directory=args.out, manifest=manifest)
    result: dict[str, Any] = {
        "format": args.to,
        "directory": str(args.out),
        "bytes": sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file()),
        "export_seconds": round(time.monotonic() - started, 1),
    }
    if args.check:
        note("comparing it with the model ...")
        result |= exporter.check(args.model, args.out)
    equal = not args.check or (result["max_abs_diff"] <= TOLERANCE and bool(result["greedy_equal"]))
    if args.json:
        print_json({**result, "manifest": dict(manifest)})
    else:
        print("\n".join(_summary(result)))
    if not equal:
        note(f"the artefact computes something else than the model: do not use {args.out}")
    return 0 if equal else 1


def _summary(result: Mapping[str, Any]) -> list[str]:
    size = result["bytes"] / 1e6
    lines = [f"{result['directory']}: {result['format']}, {size:.1f} MB, written in {result['export_seconds']} s"]
    if "max_abs_diff" in result:
        greedy = "equal" if result["greedy_equal"] else "DIFFERENT"
        lines.append(f"logits differ by at most {result['max_abs_diff']:.1e}; greedy answers are {greedy}")
    return lines
