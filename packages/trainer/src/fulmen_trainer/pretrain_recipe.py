"""The recipe of `fulmen pretrain`, and the step that makes its artefact.

In: a data run (`fulmen data build`). Out: the artefact ``base`` of a run directory, a model directory with `fork/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.errors import UserError
from fulmen_core.runs import Artefact, RunDirectory
from fulmen_core.tokenizer import load_tokenizer
from fulmen_trainer.data.documents import read_documents
from fulmen_trainer.data.shards import open_shards
from fulmen_trainer.pretrain import PretrainConfig, StageConfig, Stages, pretrain

if TYPE_CHECKING:
    from fulmen_core.registry import Registry

#: Settings that do not change the result, and must not make a finished run stale.
_INDIFFERENT = frozenset({"data", "run", "checkpoint_every", "trackers", "fork"})


def _default_stages() -> Stages:
    initial, middle, decay = (StageConfig(share=share, weights={"stdlib": 1.0}) for share in (0.55, 0.325, 0.125))
    return Stages(initial=initial, middle=middle, decay=decay)


class PretrainRecipe(PretrainConfig):
    """A pre-training run with the places that it reads and writes."""

    stages: Stages = _default_stages()
    data: Path = Path("runs/data")  # a data run
    heldout: tuple[str, ...] = ("stdlib-heldout",)  # sources of it that are measured on
    run: Path = Path("runs/pretrain")
    fork: Path | None = None  # `fork/` of an earlier run: only the fast-decay stage is run, from there


def run_pretrain(recipe: PretrainRecipe, registry: Registry) -> Artefact:
    """Make the artefact ``base`` in `recipe.run`, or go on with it, or return it if it is there.

    Raises:
        UserError: the data run lacks something that the recipe names; see `pretrain` for the rest.
    """
    names = sorted({name for stage in recipe.stages.all for name, weight in stage.weights.items() if weight > 0})
    inputs: dict[str, Path | Artefact] = {
        "tokenizer": recipe.data / "tokenizer",
        "documents": recipe.data / "unique",
        **{f"shards-{name}": recipe.data / f"shards-{name}" for name in names},
    }
    if recipe.fork is not None:
        inputs["fork"] = recipe.fork
    for label, path in inputs.items():
        if not Path(str(path)).is_dir():
            raise UserError(
                f"the data run has no {label}", where=str(recipe.data), remedy="run `fulmen data build`, or set data="
            )

    def build(work: Path) -> dict[str, Any]:
        tokenizer = load_tokenizer(recipe.data / "tokenizer")
        return pretrain(
            recipe,
            shards={name: open_shards(recipe.data / f"shards-{name}", tokenizer=tokenizer) for name in names},
            tokenizer=tokenizer,
            heldout=[text for name in recipe.heldout for text in _texts(recipe.data / "unique" / f"{name}.jsonl")],
            work=work,
            registry=registry,
            fork=recipe.fork,
        )

    facts = json.loads(recipe.model_dump_json(exclude=set(_INDIFFERENT)))
    return RunDirectory(recipe.run, registry=registry).step(
        "base", kind="model", config=facts, inputs=inputs, build=build
    )


def _texts(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"there is no held-out source {path.stem!r}", where=str(path.parent), remedy="set heldout=")
    return [str(record["text"]) for record in read_documents(path)]
