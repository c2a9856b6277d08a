"""The options that `serve` and `chat` share: which model, on which backend, under which guard, how large."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.backend_options import add_backend_options, parse_backend_options
from fulmen_core.cli import context
from fulmen_core.cli.model_source import model_directory
from fulmen_core.cli.output import note
from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_serving.loading import ServingOptions


def add_model_options(parser: ArgumentParser, *, max_sequences: int | None) -> None:
    """Add the shared options; `max_sequences` is the default of ``--max-sequences``, None leaves the option out."""
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a checkpoint, an artefact, or a known model: smollm2"
    )
    parser.add_argument("--name", default="", help="what clients call the model; default: the directory's name")
    parser.add_argument("--backend", default="auto", help="a backend's name; default: the best that serves the model")
    add_backend_options(parser)
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the RAISE policy; default: the guard's own")
    parser.add_argument("--no-guard", action="store_true", help="serve without RAISE")
    parser.add_argument(
        "--max-context", type=int, metavar="N", help="tokens of a conversation with its answer; default: the model's"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of weights and products; default: an artefact's own, float32 for a checkpoint",
    )
    parser.add_argument(
        "--quantize", choices=["int8", "fp8"], help="keep weights in 8 bits; default: in --dtype, if the backend can"
    )
    parser.add_argument(
        "--kv-dtype", choices=["float32", "bfloat16", "int8"], help="of keys and values; default: --dtype"
    )
    parser.add_argument(
        "--reasoning-parser",
        choices=["auto", "think", "none"],
        default="auto",
        help="tell reasoning in <think> tags from the answer; auto: if the template or the vocabulary knows the tag",
    )
    if max_sequences is not None:
        parser.add_argument(
            "--max-sequences",
            type=int,
            metavar="N",
            default=max_sequences,
            help="answers generated at once (%(default)s)",
        )


def serving_options(args: Namespace, *, max_sequences: int) -> ServingOptions:
    """Return what the arguments say. Serving unguarded is possible, but never silent.

    Raises:
        UserError: there is no model, or the guard is both configured and switched off.
    """
    from fulmen_serving.loading import ServingOptions

    if args.model is None:
        raise UserError("there is no --model", remedy="give the directory of a checkpoint or an exported artefact")
    if args.no_guard and args.policy is not None:
        raise UserError("--policy and --no-guard contradict each other", remedy="leave one of them out")
    if args.no_guard:
        note("fulmen: warning: serving without a guard: neither what goes in nor what comes out is checked")
    return ServingOptions(
        model=model_directory(args.model),
        name=args.name,
        backend=args.backend,
        backend_options=parse_backend_options(args.backend_option),
        guarded=not args.no_guard,
        policy=args.policy,
        max_sequences=max_sequences,
        max_context=args.max_context,
        threads=context.settings().threads or 0,
        dtype=args.dtype,
        quantize=args.quantize,
        kv_dtype=args.kv_dtype,
        reasoning={"auto": None, "think": True, "none": False}[args.reasoning_parser],
    )
