"""`fulmen data`: `build`, from the sources of a recipe to packed token shards; `safety-pairs`, see there."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

USAGE = """usage: fulmen data build [--recipe FILE] [--json] [key=value ...]
       fulmen data safety-pairs --prompts FILE --out FILE [--policy FILE] [--json]"""


def run(argv: Sequence[str]) -> int:
    """Run the verb `data`."""
    if not argv or argv[0] in ("-h", "--help"):
        told = "build: sources, RAISE-1, dedup, tokenizer, shards. safety-pairs: what RAISE-2 teaches."
        print(f"{USAGE}\n\n{told} `--help` says more.")
        return 0
    if argv[0] == "safety-pairs":
        from fulmen_trainer.cli.safety_pairs import run as safety_pairs

        return safety_pairs(argv[1:])
    if argv[0] != "build":
        remedy = remedy_for_unknown(argv[0], ("build", "safety-pairs"), kind="commands")
        raise UserError(f"unknown command {argv[0]!r}", where="fulmen data", remedy=remedy)
    return _build(argv[1:])


def _build(argv: Sequence[str]) -> int:
    parser = arguments.parser("fulmen data build", "build token shards from the sources of a recipe")
    args = parser.parse_args(argv)

    from fulmen_core.recipes import load_recipe
    from fulmen_trainer.data.pipeline import build_data
    from fulmen_trainer.data.recipe import DataRecipe

    recipe = load_recipe(DataRecipe, args.recipe, args.overrides)
    result = build_data(recipe, context.registry(), report=output.note)
    if args.json:
        output.print_json(
            {
                "run": str(recipe.run),
                "tokenizer": str(result.tokenizer),
                "documents": {name: str(path) for name, path in result.documents.items()},
                "shards": {name: str(path) for name, path in result.shards.items()},
                "statistics": result.statistics,
                "reports": {name: str(path) for name, path in result.reports.items()},
            }
        )
        return 0
    columns = ("documents", "bytes", "tokens", "bytes_per_token", "redacted", "dropped", "quarantined", "duplicates")
    rows = [
        [
            name,
            *(
                f"{figures[column]:.2f}" if column == "bytes_per_token" else f"{figures[column]:,}"
                for column in columns
            ),
        ]
        for name, figures in result.statistics.items()
    ]
    output.print_table(["source", *(column.replace("_", " ") for column in columns)], rows, empty="no source")
    for path in result.reports.values():
        output.note(f"what RAISE-1 found is in {path}")
    output.note(f"shards and tokenizer are in {recipe.run}")
    return 0
