"""`fulmen tokenizer train`: a byte-level BPE tokenizer from the sources of a recipe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_trainer.data.recipe import TokenizerRecipe

USAGE = "usage: fulmen tokenizer train [--recipe FILE] [--json] [key=value ...]"


def run(argv: Sequence[str]) -> int:
    """Run the verb `tokenizer`; its one command is `train`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nTrain a tokenizer on documents; `fulmen tokenizer train --help` for the options.")
        return 0
    if argv[0] != "train":
        raise UserError(f"unknown command {argv[0]!r}", where="fulmen tokenizer", remedy="use `fulmen tokenizer train`")
    return _train(argv[1:])


def _train(argv: Sequence[str]) -> int:
    parser = arguments.parser("fulmen tokenizer train", "train a BPE tokenizer on the sources of a recipe")
    args = parser.parse_args(argv)

    from fulmen_core.files import atomic_directory
    from fulmen_core.recipes import load_recipe
    from fulmen_core.tokenizer import ByteLevelTokenizer
    from fulmen_trainer.data.recipe import TokenizerRecipe

    recipe = load_recipe(TokenizerRecipe, args.recipe, args.overrides)
    texts = list(_texts(recipe, context.registry()))
    size = sum(len(text.encode("utf-8")) for text in texts)
    output.note(f"training {recipe.vocab_size} tokens on {len(texts):,} documents, {size:,} bytes")
    start = time.perf_counter()
    tokenizer = ByteLevelTokenizer.train(texts, recipe.vocab_size)
    seconds = time.perf_counter() - start
    _refuse_foreign(recipe.out)
    with atomic_directory(recipe.out) as work:
        tokenizer.save(work)
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    result = {
        "tokenizer": str(recipe.out),
        "vocab_size": tokenizer.vocab_size,
        "learned": tokenizer.vocab_size - len(tokenizer.special_ids),
        "fingerprint": tokenizer.fingerprint,
        "documents": len(texts),
        "bytes": size,
        "bytes_per_token": size / tokens,
        "seconds": seconds,
    }
    if args.json:
        output.print_json(result)
    else:
        print(
            f"{recipe.out}: {tokenizer.vocab_size:,} tokens, {result['learned']:,} of them bytes and merges, "
            f"{result['bytes_per_token']:.2f} bytes per token, {seconds:.1f} s"
        )
    return 0


def _texts(recipe: TokenizerRecipe, registry: Registry) -> Iterator[str]:
    """What the tokenizer learns from, of every source."""
    from fulmen_trainer.data.documents import checked_records
    from fulmen_trainer.data.pipeline import open_source
    from fulmen_trainer.data.tokenising import training_texts

    for name, source in recipe.sources.items():
        for record in checked_records(name, open_source(name, source, registry)):
            if "fault" not in record:  # it is in the log
                yield from training_texts([record])


def _refuse_foreign(out: Path) -> None:
    """The directory is replaced as a whole, so it must be absent, empty, or a tokenizer."""
    if out.is_dir() and any(out.iterdir()) and not (out / "tokenizer.json").is_file():
        raise UserError(f"{out} holds something else than a tokenizer", where="out", remedy="choose another folder")
    if (out / "model.safetensors").is_file() or (out / "config.json").is_file():
        raise UserError(f"{out} holds a model", where="out", remedy="choose another folder")
