"""What `fulmen serve` keeps of sequences, and how it uses what it knows of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen_serving.loading import ServingOptions


def add_cache_options(parser: ArgumentParser) -> None:
    """Add the options; `with_cache_options` takes them over."""
    parser.add_argument(
        "--cached-prefixes",
        type=int,
        metavar="N",
        default=16,
        help="prefixes kept for requests that begin alike, each with the memory of its windows, or of a whole context "
        "where the backend has no pages (%(default)s)",
    )
    parser.add_argument(
        "--kv-tokens",
        type=int,
        metavar="N",
        default=0,
        help="tokens that all full caches hold together; default: whole contexts for --max-sequences",
    )
    parser.add_argument(
        "--speculate",
        metavar="ngram|DIR",
        default="",
        help="guess tokens from what was said before, or with a smaller model of the same tokenizer",
    )
    parser.add_argument(
        "--draft-tokens", type=int, metavar="N", default=4, help="guesses for a sequence in a step (%(default)s)"
    )
    parser.add_argument(
        "--batch-invariant",
        action="store_true",
        help="compute so that no answer depends on what else runs, to the last bit; slower for prompts",
    )


def with_cache_options(options: ServingOptions, args: Namespace) -> ServingOptions:
    """`options` with what the arguments say."""
    return replace(
        options,
        cached_prefixes=args.cached_prefixes,
        kv_tokens=args.kv_tokens,
        speculate=args.speculate,
        draft_tokens=args.draft_tokens,
        batch_invariant=args.batch_invariant,
    )
