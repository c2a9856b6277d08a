"""`fulmen export`: writes an artefact with whichever exporter brings the format, and compares it with the model.

`fulmen export check DIR` compares an artefact that is there, alone, with the answers of its model that it holds.
"""

from __future__ import annotations

import time
from argparse import BooleanOptionalAction
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from fulmen_core.artefacts import MANIFEST_FILE, check_replaceable
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.cli import arguments, context
from fulmen_core.cli.model_source import model_directory
from fulmen_core.cli.output import note, print_json
from fulmen_core.errors import PluginError, UserError
from fulmen_core.files import read_json


def run(argv: Sequence[str]) -> int:
    """Export, announce, compare, and print a summary. Returns 1 if the artefact computes something else."""
    if argv and argv[0] == "check":
        return _check(argv[1:])
    from fulmen_core.export.options import ExportOptions
    from fulmen_core.export.verdict import fault

    defaults = ExportOptions()
    parser = arguments.parser("fulmen export", "write a deployable artefact and compare it", recipe=False)
    parser.epilog = "`fulmen export check DIR` compares an artefact again, where it is, without its model."
    parser.add_argument("--to", required=True, metavar="FORMAT", help="format of the artefact, e.g. onnx")
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="model folder to export")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write or replace")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="float32", help="of the artefact (%(default)s)")
    parser.add_argument("--quantize", choices=get_args(Quantization), help="keep weights in so many bits")
    limits = parser.add_argument_group("for formats with fixed shapes")
    limits.add_argument("--max-sequences", type=_count, metavar="N", help=f"at once ({defaults.max_sequences})")
    limits.add_argument("--max-context", type=_count, metavar="N", help="tokens of one; default: the model's")
    limits.add_argument("--max-step-tokens", type=_count, metavar="N", help=f"of a step ({defaults.max_step_tokens})")
    limits.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="X.Y",
        help="of a GPU to build for; repeatable",
    )
    parser.add_argument(
        "--check", action=BooleanOptionalAction, default=True, help="compare logits and greedy answers with the model"
    )
    args = parser.parse_args(argv)
    args.model = model_directory(args.model)
    if not args.model.is_dir():
        raise UserError(f"there is no model folder {args.model}", remedy="check --model")
    check_replaceable(args.out)
    options = ExportOptions(
        dtype=args.dtype,
        quantize=args.quantize,
        max_sequences=args.max_sequences or defaults.max_sequences,
        max_context=args.max_context,
        max_step_tokens=args.max_step_tokens or defaults.max_step_tokens,
        compute_capabilities=tuple(args.compute_capability),
    )

    exporter = context.registry().exporter(args.to)
    started = time.monotonic()
    note(f"exporting {args.model} to {args.to} ...")
    manifest = exporter.export(args.model, args.out, options)
    context.registry().announce("fulmen_export_done", directory=args.out, manifest=manifest)
    result: dict[str, Any] = {
        "format": args.to,
        "directory": str(args.out),
        "bytes": sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file()),
        "export_seconds": round(time.monotonic() - started, 1),
    }
    size = result["bytes"] / 1e6
    lines = [f"{result['directory']}: {result['format']}, {size:.1f} MB, written in {result['export_seconds']} s"]
    wrong = ""
    if args.check:
        note("comparing it with the model ...")
        found = exporter.check(args.out, args.model)
        wrong = fault(found, manifest)
        result |= found
        lines += _summary(found)
    if args.json:
        print_json({**result, "manifest": dict(manifest)})
    else:
        print("\n".join(lines))
    return _end(args.out, wrong)


def _check(argv: Sequence[str]) -> int:
    from fulmen_core.export.manifest import artefact_format
    from fulmen_core.export.verdict import fault

    parser = arguments.parser("fulmen export check", "compare an artefact with its model's answers again", recipe=False)
    parser.add_argument("artefact", type=Path, metavar="DIR", help="a folder that `fulmen export` wrote")
    parser.add_argument("--model", type=Path, metavar="DIR", help="ask this model afresh; default: the answers in DIR")
    args = parser.parse_args(argv)
    model = None if args.model is None else model_directory(args.model)
    format = artefact_format(args.artefact)
    found = _compare(format, args.artefact, model)
    if args.json:
        print_json({"format": format, "directory": str(args.artefact), **found})
    else:
        print("\n".join(_summary(found)))
    return _end(args.artefact, fault(found, read_json(args.artefact / MANIFEST_FILE, "artefact manifest")))


def _compare(format: str, artefact: Path, model: Path | None) -> Mapping[str, Any]:
    """By the exporter; where that is not installed whole, as on a machine that only serves, by the backend."""
    try:
        exporter = context.registry().exporter(format)
    except PluginError:
        if model is not None:
            raise
        from fulmen_core.export.checking import check_by_backend

        return check_by_backend(context.registry(), artefact)
    return exporter.check(artefact, model)


def _summary(found: Mapping[str, Any]) -> list[str]:
    greedy = "equal" if found["greedy_equal"] else "DIFFERENT"
    lines = [f"logits differ by at most {found['max_abs_diff']:.1e}; greedy answers are {greedy}"]
    if "mean_kl" in found:
        lines.append(
            f"divergence {found['mean_kl']:.1e} nats, likeliest token alike in {100 * found['top1_agreement']:.1f} % "
            f"of {found['logits_compared']}"
        )
    if "executed" in found:
        lines.append(f"what was run: {found['executed']}")
    return lines


def _end(artefact: Path, wrong: str) -> int:
    if wrong:
        note(f"the artefact computes something else than the model ({wrong}): do not use {artefact}")
    return int(bool(wrong))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
