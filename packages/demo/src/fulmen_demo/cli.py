"""The verb `demo`: run the road, write `summary.json` and `report.html`, print what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli import arguments, context, output


def run(argv: Sequence[str]) -> int:
    """Run the main job; interrupted, the same command goes on from there."""
    parser = arguments.parser("fulmen demo", "run the whole road on this machine, with a report")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run directory; default: the recipe's, runs/demo")
    options = parser.parse_args(argv)

    from rich.console import Console

    from fulmen_core.cli.thread_choice import settle_threads
    from fulmen_core.files import atomic_write_json, atomic_write_text
    from fulmen_core.recipes import load_recipe
    from fulmen_demo.config import DEFAULT_RECIPE, DemoConfig
    from fulmen_demo.report import render
    from fulmen_demo.road import Road
    from fulmen_demo.summary import claims, evaluation_of, guard_of, summarise
    from fulmen_demo.terminal import print_results

    config = load_recipe(DemoConfig, options.recipe or DEFAULT_RECIPE, options.overrides)
    if options.run is not None:
        config = config.model_copy(update={"run": options.run})
    settle_threads(config.run, config.backend)
    console = Console(stderr=True)
    journey = Road(config, context.registry(), console).travel()
    summary = summarise(config, journey)
    evaluation, guard = evaluation_of(journey), guard_of(journey)
    promises = claims(summary, guard)
    atomic_write_text(config.run / "report.html", render(config, journey, summary, promises, evaluation, guard))
    atomic_write_json(config.run / "summary.json", summary)
    print_results(console, journey, summary, promises, evaluation, guard)
    if options.json:
        output.print_json(summary)
    return 0 if all(promise.met for promise in promises) else 1
