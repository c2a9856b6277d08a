"""The LoRA adapters of `fulmen serve`: where they lie, and how many are loaded at once."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen_serving.loading import ServingOptions


def add_adapter_options(parser: ArgumentParser) -> None:
    """Add the options; `with_adapter_options` takes them over."""
    parser.add_argument(
        "--adapters",
        type=Path,
        metavar="DIR",
        help="a folder of LoRA adapters in PEFT's form, each served under its folder's name as soon as it is there",
    )
    parser.add_argument(
        "--max-adapters", type=int, metavar="N", default=8, help="adapters that are loaded at once (%(default)s)"
    )
    parser.add_argument(
        "--max-adapter-rank", type=int, metavar="R", default=64, help="the largest rank of one (%(default)s)"
    )


def with_adapter_options(options: ServingOptions, args: Namespace) -> ServingOptions:
    """`options` with what the arguments say."""
    return replace(
        options, adapters=args.adapters, max_adapters=args.max_adapters, max_adapter_rank=args.max_adapter_rank
    )
