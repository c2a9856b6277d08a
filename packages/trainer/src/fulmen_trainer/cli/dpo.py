"""`fulmen dpo`: align a model with DPO, offline and online."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context
from fulmen_trainer.cli.measurements import report


def run(argv: Sequence[str]) -> int:
    """Run the verb `dpo`."""
    args = arguments.parser("fulmen dpo", "align a model with DPO, offline and online").parse_args(argv)

    from fulmen_core.cli.thread_choice import settle_threads
    from fulmen_core.recipes import load_recipe
    from fulmen_trainer.post_training_recipes import DPORecipe, run_dpo

    recipe = load_recipe(DPORecipe, args.recipe, args.overrides)
    settle_threads(recipe.run, recipe.backend)
    return report(run_dpo(recipe, context.registry()), as_json=args.json)
