"""The end of the main job on the terminal: stages, promises, samples, expert load, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fulmen_demo.report import expert_load_of, stage_rows
from fulmen_demo.road import Journey
from fulmen_demo.summary import Claim

_SHADES = " ░▒▓█"


def print_results(
    console: Console,
    journey: Journey,
    summary: Mapping[str, Any],
    promises: Sequence[Claim],
    evaluation: Mapping[str, Any],
    guard: Mapping[str, Any],
) -> None:
    """Print everything a reader of the terminal should have seen."""
    stages = Table("stage", "what came out", "seconds", title="Stages", title_justify="left")
    for row in stage_rows(journey):
        stages.add_row(row["name"], row["result"], row["seconds"])
    console.print(stages)

    samples = Table("prompt", "expected", *evaluation["models"], title="Held-out questions", title_justify="left")
    for index, question in enumerate(evaluation["questions"]):
        answers = [model["answers"][index] for model in evaluation["models"].values()]
        cells = [Text(answer["text"], style="green" if answer["right"] else "red") for answer in answers]
        samples.add_row(Text(question["prompt"]), Text(question["expected"]), *cells)
    console.print(samples)

    console.print(
        "Expert load at the end of pre-training: layers down, experts across, full block = twice the even share"
    )
    load_LE = expert_load_of(journey)
    for layer, row in enumerate(load_LE * load_LE.shape[1]):
        shades = "".join(_SHADES[min(4, int(2 * share + 0.5))] * 2 for share in row)
        console.print(f"  {layer:2d} {shades}  {row.min():.2f} to {row.max():.2f}", highlight=False)

    console.print(f"Attack   {guard['attack']['prompt']}", highlight=False)
    console.print(
        f"  answer {guard['attack']['answer']}  [{guard['attack']['finish_reason']}]", highlight=False, markup=False
    )
    console.print(f"Stream   {guard['leak']['prompt']}", highlight=False)
    console.print(f"  model     {guard['leak']['unguarded']}", highlight=False, markup=False)
    console.print(f"  delivered {guard['leak']['delivered']}", highlight=False, markup=False)

    promised = Table("promise", "measured", "wanted", "", title="Promises", title_justify="left")
    for promise in promises:
        mark = Text("kept", style="green") if promise.met else Text("broken", style="bold red")
        promised.add_row(promise.name, promise.value, promise.claim, mark)
    console.print(promised)
    console.print(f"{summary['seconds']:.0f} seconds of work. Report: {summary['report']}", highlight=False)
    console.print(f"Chat with it: fulmen chat --model {summary['model']}", highlight=False, style="bold")
