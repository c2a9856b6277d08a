"""`fulmen reward`: train a reward model on preference pairs."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context
from fulmen_trainer.cli.measurements import report


def run(argv: Sequence[str]) -> int:
    """Run the verb `reward`."""
    args = arguments.parser("fulmen reward", "train a reward model on preference pairs").parse_args(argv)

    from fulmen_core.cli.thread_choice import settle_threads
    from fulmen_core.recipes import load_recipe
    from fulmen_trainer.post_training_recipes import RewardRecipe, run_reward

    recipe = load_recipe(RewardRecipe, args.recipe, args.overrides)
    settle_threads(recipe.run, recipe.backend)
    return report(run_reward(recipe, context.registry()), as_json=args.json)
