"""The verbs: artefacts in a run directory, results as JSON, unchanged work skipped, faults in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.errors import UserError
from fulmen_core.recipes import load_recipe
from fulmen_trainer.cli.measurements import report
from fulmen_trainer.post_training_recipes import (
    DPORecipe,
    RewardRecipe,
    SFTRecipe,
    run_dpo,
    run_reward,
    run_sft,
)
from fulmen_trainer.reward import RewardModel

SHORT = ["total_steps=2", "batch_size=4", "sequence_length=64", "log_every=1", "optimizer.lr=0.003"]
PAIRS = ["pairs.answers=2", "pairs.max_tokens=6", "pairs.known_answer=true", "pairs.temperatures=[1.0]"]


def test_from_a_base_model_to_an_aligned_one(world: Any, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = world.root / "run"
    items = world.write("items.jsonl", world.items[:8])
    places = [f"run={run}", *SHORT]

    sft = run_sft(load_recipe(SFTRecipe, None, [f"model={tuned}", f"data={items}", *places]), world.registry)
    recipe = load_recipe(RewardRecipe, None, [f"model={sft.path}", f"items={items}", *places, *PAIRS])
    reward = run_reward(recipe, world.registry)
    RewardModel.load(reward.path)
    overrides = [f"model={sft.path}", f"items={items}", f"reward={reward.path}", "online_prompts=4", *places, *PAIRS]
    dpo = run_dpo(load_recipe(DPORecipe, None, overrides), world.registry)

    manifest = json.loads((run / "manifest.json").read_text())
    made = set(manifest["artefacts"])
    assert {"sft", "reward-pmp-pairs", "reward-pmp", "reward-pairs", "reward", "dpo-pairs", "dpo"} <= made
    assert (dpo.path / "model.safetensors").is_file()
    assert not (dpo.path / "checkpoints").exists()

    again = run_sft(load_recipe(SFTRecipe, None, [f"model={tuned}", f"data={items}", *places]), world.registry)
    assert again.skipped
    assert report(dpo, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["iterations"][1]["name"] == "round-1"
    assert report(dpo, as_json=False) == 0
    assert "iterations.round-1.loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "run", "message"),
    [
        (RewardRecipe, run_reward, "nothing to learn a reward from"),
        (DPORecipe, run_dpo, "no preferences to align with"),
    ],
)
def test_missing_data_is_told(world: Any, recipe: Any, run: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(load_recipe(recipe, None, [f"model={world.model}", f"run={world.root / 'run'}"]), world.registry)


def test_a_missing_model_and_a_missing_file_are_told(world: Any) -> None:
    items = world.write("items.jsonl", world.items[:2])
    for model, data in ((world.root / "none", items), (world.model, world.root / "none.jsonl")):
        recipe = load_recipe(SFTRecipe, None, [f"model={model}", f"data={data}", f"run={world.root / 'run'}"])
        with pytest.raises(UserError, match=r"there is no .*none"):
            run_sft(recipe, world.registry)


def test_an_unknown_key_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'beta'"):
        load_recipe(DPORecipe, None, ["model=x", "betta=0.2"])
