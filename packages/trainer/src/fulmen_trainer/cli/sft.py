"""`fulmen sft`: fine-tune a model on instructions."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context
from fulmen_trainer.cli.measurements import report


def run(argv: Sequence[str]) -> int:
    """Run the verb `sft`."""
    args = arguments.parser("fulmen sft", "fine-tune a model on instructions").parse_args(argv)

    from fulmen_core.cli.thread_choice import settle_threads
    from fulmen_core.recipes import load_recipe
    from fulmen_trainer.post_training_recipes import SFTRecipe, run_sft

    recipe = load_recipe(SFTRecipe, args.recipe, args.overrides)
    settle_threads(recipe.run, recipe.backend)
    return report(run_sft(recipe, context.registry()), as_json=args.json)
