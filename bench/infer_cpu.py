"""Fulmen and every installed peer on the same random AFMoE weights: prefill, decode, memory, share of the bandwidth.

    python bench/infer_cpu.py --json > cells.json      # every cell; hours on two cores
    python bench/infer_cpu.py --quick                  # batch 1 and 4, prompts of 128 and 1,024, one round
    python bench/infer_cpu.py --cells 1x128,16x128 --engines fulmen,llama:q8_0

Peers come from `python bench/peers/install.py all --into DIR` and are found by ``--peers DIR``. One that is not
installed is named, with the reason, and left out. Engines run in processes of their own, pinned to two cores, one at a
time and in turns; nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference import report
from inference.engines import ENGINES, Contender, find
from inference.folders import add_folders
from inference.measurement import Cell, Effort, measure, model_folder
from inference.names import names_of
from inference.shapes import SHAPES

_BATCHES = (1, 4, 16)
_PROMPTS = (128, 1024, 8192)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 2 if what was asked for cannot be, 130 after Ctrl-C."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: workers end with the driver
    found, missing = find(args.peers, dict(args.python))
    for name, reason in missing.items():
        if not args.engines or name in dict(args.engines):
            say(f"left out: {name}: {reason}")
    wanted = args.engines or [(name, None) for name in ENGINES]
    contenders = [
        Contender(ENGINES[name], precision, found[name])
        for name, only in wanted
        if name in found
        for precision in ((only,) if only else ENGINES[name].precisions)
        if args.precision is None or precision == args.precision
    ]
    if not contenders:
        say("nothing to measure: no engine is installed")
        return 2
    if "transformers" not in found:
        say("transformers writes the weights that all engines read: `pip install transformers`, or --python")
        return 2

    cores = sorted(os.sched_getaffinity(0))[: args.threads] if hasattr(os, "sched_getaffinity") else range(args.threads)
    effort = Effort(rounds=args.rounds, new_tokens=args.new_tokens, decode_seconds=args.decode_seconds)
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for name in args.shapes:
        shape = SHAPES[name]
        model = model_folder(shape, args.work, found["transformers"])
        measured = measure(shape, model, contenders, args.cells, cores, effort, say)
        rows += report.cells(measured, args.precision)
        about[name] = {
            "parameters": shape.parameters,
            "active_parameters": shape.active_parameters,
            "bandwidth_bytes_per_s": measured.bandwidths,
            "details": measured.details,
            "failures": measured.failures,
        }
    result = {"cells": rows, "shapes": about, "left_out": missing, "threads": len(cores)}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    text = report.table(rows)
    if args.json:
        say(text)
        print(json.dumps(rows))
    else:
        print(text)
    return 0


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the cells as JSON on stdout, the table on stderr")
    parser.add_argument("--out", type=Path, help="write them, and what is known of shapes and engines, to this file")
    add_folders(parser)
    parser.add_argument("--python", type=_engine_python, action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--shapes", type=names_of("shape", SHAPES), default=["A", "S"], help="of " + ", ".join(SHAPES))
    parser.add_argument("--cells", type=_cells, help="batch x prompt, e.g. 1x128,4x1024")
    parser.add_argument("--quick", action="store_true", help="1x128, 1x1024 and 4x128, one round, 16 new tokens")
    parser.add_argument("--engines", type=_engines, help="e.g. fulmen,llama:q8_0; default: all that are installed")
    parser.add_argument("--precision", choices=("bf16", "int8", "q8_0"), help="compare in this one alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--decode-seconds", type=float, default=10.0, help="stop decoding earlier (%(default)s)")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.new_tokens = 1, 16
    if args.cells is None:
        every = [Cell(batch, prompt) for prompt in _PROMPTS for batch in _BATCHES]
        args.cells = [Cell(1, 128), Cell(1, 1024), Cell(4, 128)] if args.quick else every
    return args


def _engine_python(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in ENGINES or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not ENGINE=PATH with an engine of {', '.join(ENGINES)}")
    return name, Path(path)


def _engines(text: str) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for part in text.split(","):
        name, _, precision = part.partition(":")
        if name not in ENGINES or (precision and precision not in ENGINES[name].precisions):
            known = ", ".join(f"{kind.name}:{'|'.join(kind.precisions)}" for kind in ENGINES.values())
            raise argparse.ArgumentTypeError(f"{part!r} is none of {known}")
        pairs.append((name, precision or None))
    return pairs


def _cells(text: str) -> list[Cell]:
    try:
        return [Cell(*map(int, part.split("x"))) for part in text.split(",")]
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no list like 1x128,4x1024") from None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
