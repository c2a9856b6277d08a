"""`fulmen pretrain`: three pre-training stages in one run."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context, output


def run(argv: Sequence[str]) -> int:
    """Run the verb `pretrain`."""
    args = arguments.parser("fulmen pretrain", "pre-train in three stages on a data run").parse_args(argv)

    from fulmen_core.cli.thread_choice import settle_threads
    from fulmen_core.recipes import load_recipe
    from fulmen_trainer.pretrain_recipe import PretrainRecipe, run_pretrain

    recipe = load_recipe(PretrainRecipe, args.recipe, args.overrides)
    settle_threads(recipe.run, recipe.backend)
    artefact = run_pretrain(recipe, context.registry())
    if args.json:
        output.print_json({"model": str(artefact.path), **artefact.measurements})
        return 0
    rows = [
        [name, f"{value:,.4g}" if isinstance(value, float) else str(value)]
        for name, value in artefact.measurements.items()
    ]
    output.print_table(["measurement", "value"], rows, empty="nothing measured")
    output.note(f"the model is in {artefact.path}{' (unchanged)' if artefact.skipped else ''}")
    return 0
