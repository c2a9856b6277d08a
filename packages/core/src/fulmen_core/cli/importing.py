"""`fulmen import`: an open checkpoint becomes a model folder that every other verb takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, context
from fulmen_core.cli.model_source import checkpoint_of, import_into, known_directory
from fulmen_core.cli.output import print_json
from fulmen_core.errors import UserError
from fulmen_core.formats.known_models import KNOWN_MODELS
from fulmen_core.recipes import load_recipe


def run(argv: Sequence[str]) -> int:
    """Import, and print what was found and written."""
    parser = arguments.parser("fulmen import", "turn an open checkpoint into a model folder", recipe=False)
    known = ", ".join(KNOWN_MODELS)
    parser.add_argument("source", metavar="SOURCE", help=f"a Hugging Face folder, a .gguf file, or a name: {known}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write; a named model may go to the cache")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the written weights; auto keeps the stored one and expands quantised weights to float32",
    )
    parser.add_argument(
        "--upcycle",
        metavar="KEY=VALUE ...",
        help="make a mixture of experts of a dense model, the function unchanged: experts=16 active=4 split=4 "
        "dense_layers=0 pattern=SSSF window=4096 seed=0",
    )
    parser.set_defaults(overrides=[])
    parser.add_argument("--format", metavar="NAME", help="the source's format; default: found out")
    args = parser.parse_args(argv)
    upcycling = _upcycling(args.upcycle, args.overrides)
    if args.out is None:
        if upcycling is not None:
            raise UserError("there is no --out", where="fulmen import --upcycle", remedy="name the folder to write")
        if args.source not in KNOWN_MODELS:
            raise UserError("there is no --out", where="fulmen import", remedy="name the folder to write")
        args.out = known_directory(args.source, context.settings().cache_dir)
    result = import_into(
        checkpoint_of(args.source, args.out),
        args.out,
        dtype=args.dtype,
        format_name=args.format,
        upcycling=upcycling,
    )
    if args.json:
        print_json(result)
    else:
        print("\n".join(_summary(result)))
    return 0


def _upcycling(first: str | None, rest: Sequence[str]) -> Any:
    if first is None:
        if rest:
            raise UserError(f"unknown argument {rest[0]!r}", where="fulmen import", remedy="put --upcycle before it")
        return None
    from fulmen_core.formats.upcycling import UpcycleConfig

    return load_recipe(UpcycleConfig, overrides=[first, *rest])


def _summary(result: Mapping[str, Any]) -> list[str]:
    translated = result["translated"]
    layers = ", ".join(f"{count} x {kind}" for kind, count in translated["layers"].items())
    tokenizer = "no tokenizer"
    if translated["tokens"] is not None:
        template = "with" if translated["chat_template"] else "without"
        tokenizer = f"a tokenizer of {translated['tokens']:,} tokens, {template} a chat template"
    lines = [
        f"{result['family']} from {result['format']}: {result['parameters_total'] / 1e6:,.1f} M parameters, "
        f"{result['parameters_active'] / 1e6:,.1f} M active for a token",
        f"translated: {translated['tensors']} tensors ({layers}), {tokenizer}",
    ]
    if result["upcycled"] is not None:
        how = (
            "computes what the dense model does" if result["upcycled"]["keeps_function"] else "computes less: train it"
        )
        lines.append(f"upcycled: {result['upcycled']['experts']} experts; {how}")
    lines.append(f"{result['directory']}: {result['bytes'] / 1e6:,.1f} MB, written in {result['seconds']} s")
    return lines
