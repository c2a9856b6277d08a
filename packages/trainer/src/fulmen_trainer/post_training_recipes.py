"""The recipes of `fulmen sft`, `fulmen reward` and `fulmen dpo`, and the steps that make their artefacts.

In: a model directory and JSON Lines. Out: artefacts ``sft``, ``reward`` (and ``reward-pmp``), ``dpo`` of a run
directory, each a model directory, and the preference pairs that were made on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from fulmen_core.errors import UserError
from fulmen_core.runs import Artefact, RunDirectory
from fulmen_trainer.conversations import read_items
from fulmen_trainer.dpo import DPOConfig, OnlineInputs, align
from fulmen_trainer.pair_building import PAIRS_FILE, Judge, PairConfig, sample_pairs
from fulmen_trainer.preferences import corrupted_pairs, write_pairs
from fulmen_trainer.reward import RewardConfig, RewardModel, train_reward
from fulmen_trainer.sft import SFTConfig, fine_tune

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.registry import Registry

#: Settings that do not change the result, and must not make a finished run stale; the hashes of inputs stand for paths.
_INDIFFERENT = {"model", "data", "items", "pmp", "reward", "policy", "run", "checkpoint_every", "log_every", "trackers"}


class _Places(BaseModel):
    """What every verb of post-training reads, and where it writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path  # model directory to start from
    run: Path = Path("runs/post")  # run directory of the artefacts
    guard: str = ""  # RAISE-2's guard, e.g. "raise"; empty: none
    policy: Path | None = None  # of the guard; None: its own default


class SFTRecipe(SFTConfig, _Places):
    """Fine-tuning with its places."""

    data: Path  # instructions


class RewardRecipe(RewardConfig, _Places):
    """Both phases of the reward model with their places. Give `data`, or `items` to make pairs of."""

    data: Path | None = None  # preference pairs of the second phase (HFFT)
    items: Path | None = None  # without `data`: task items, answered by `model` and judged by their verifiers
    pmp: Path | None = None  # preference pairs of the first phase; without, and with `items`: corrupted answers
    pairs: PairConfig = PairConfig(known_answer=True)  # how `items` become pairs


class DPORecipe(DPOConfig, _Places):
    """DPO with its places. Give `data`, or only `items`: their answers are judged by `reward` and their verifiers."""

    data: Path | None = None  # preference pairs of the offline iteration
    items: Path | None = None  # task items of the online rounds, and of the offline pairs where `data` is missing
    reward: Path | None = None  # reward directory


def run_sft(recipe: SFTRecipe, registry: Registry) -> Artefact:
    """Make the artefact ``sft`` in `recipe.run`, or go on with it, or return it if it is there. Raises `UserError`."""
    return _step(
        recipe,
        registry,
        "sft",
        "model",
        {"model": recipe.model, "data": recipe.data},
        lambda work: fine_tune(
            recipe.model, recipe.data, config=recipe, registry=registry, work=work, guard=_guard(recipe, registry)
        ),
    )


def run_reward(recipe: RewardRecipe, registry: Registry) -> Artefact:
    """Make the artefact ``reward`` in `recipe.run`, by one phase or two. Raises `UserError`."""
    if recipe.data is None and recipe.items is None:
        raise UserError("there is nothing to learn a reward from", where="the recipe", remedy="set data= or items=")
    start: Path | Artefact = recipe.model
    if recipe.pmp is not None or recipe.items is not None:
        pmp: Path | Artefact = recipe.pmp or _corrupted(recipe, registry)
        start = _train_reward(recipe, registry, "reward-pmp", recipe.model, pmp)
    data = recipe.data or _sampled(recipe, registry, "reward-pairs", None)
    return _train_reward(recipe, registry, "reward", start, data)


def run_dpo(recipe: DPORecipe, registry: Registry) -> Artefact:
    """Make the artefact ``dpo`` in `recipe.run`. Raises `UserError`."""
    if recipe.data is None and recipe.items is None:
        raise UserError("there are no preferences to align with", where="the recipe", remedy="set data= or items=")
    reward_model = RewardModel.load(recipe.reward) if recipe.reward is not None else None
    data = recipe.data or _sampled(recipe, registry, "dpo-pairs", reward_model)
    online = None
    inputs: dict[str, Path | Artefact] = {"model": recipe.model, "data": data}
    if recipe.reward is not None:
        inputs["reward"] = recipe.reward
    if recipe.items is not None:
        inputs["items"] = recipe.items
        online = OnlineInputs(read_items(recipe.items), reward_model, _guard(recipe, registry))

    def build(work: Path) -> Mapping[str, Any]:
        pairs = _file_of(data)
        return align(recipe.model, pairs, config=recipe, registry=registry, work=work, online=online)

    return _step(recipe, registry, "dpo", "model", inputs, build)


def _train_reward(
    recipe: RewardRecipe, registry: Registry, name: str, start: Path | Artefact, data: Path | Artefact
) -> Artefact:
    directory = start.path if isinstance(start, Artefact) else start
    return _step(
        recipe,
        registry,
        name,
        "reward",
        {"model": start, "data": data},
        lambda work: train_reward(directory, _file_of(data), config=recipe, registry=registry, work=work),
    )


def _corrupted(recipe: RewardRecipe, registry: Registry) -> Artefact:
    assert recipe.items is not None
    items = recipe.items

    def build(work: Path) -> Mapping[str, Any]:
        pairs = corrupted_pairs(read_items(items), recipe.seed)
        write_pairs(work / PAIRS_FILE, pairs)
        return {"pairs": len(pairs)}

    return _step(recipe, registry, "reward-pmp-pairs", "pairs", {"items": items}, build, facts={"seed": recipe.seed})


def _sampled(
    recipe: RewardRecipe | DPORecipe, registry: Registry, name: str, reward_model: RewardModel | None
) -> Artefact:
    assert recipe.items is not None
    items = recipe.items
    inputs: dict[str, Path | Artefact] = {"model": recipe.model, "items": items}
    if isinstance(recipe, DPORecipe) and recipe.reward is not None:
        inputs["reward"] = recipe.reward

    def build(work: Path) -> Mapping[str, Any]:
        judge = Judge(registry, recipe.pairs, reward_model, _guard(recipe, registry))
        return sample_pairs(recipe.model, read_items(items), judge, seed=recipe.seed, work=work, backend=recipe.backend)

    facts = {"seed": recipe.seed, "pairs": recipe.pairs.model_dump(mode="json"), "guard": recipe.guard}
    return _step(recipe, registry, name, "pairs", inputs, build, facts=facts)


def _file_of(data: Path | Artefact) -> Path:
    return data.path / PAIRS_FILE if isinstance(data, Artefact) else data


def _guard(recipe: _Places, registry: Registry) -> Guard | None:
    return registry.guard(recipe.guard, recipe.policy) if recipe.guard else None


def _step(
    recipe: _Places,
    registry: Registry,
    name: str,
    kind: str,
    inputs: Mapping[str, Path | Artefact],
    build: Callable[[Path], Mapping[str, Any]],
    *,
    facts: Mapping[str, Any] | None = None,
) -> Artefact:
    """Make an artefact of `inputs` and `facts`, which are the whole recipe unless only a part of it matters."""
    facts = facts if facts is not None else json.loads(recipe.model_dump_json(exclude=_INDIFFERENT))
    policy = {"policy": recipe.policy} if recipe.policy is not None else {}
    run = RunDirectory(recipe.run, registry=registry)
    return run.step(name, kind=kind, config=facts, inputs={**inputs, **policy}, build=build)
