"""The demo's recipe: the recipe of every stage, and what is measured at the end."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fulmen_trainer.data.recipe import DataRecipe
from fulmen_trainer.dpo import DPOConfig
from fulmen_trainer.pair_building import PairConfig
from fulmen_trainer.pretrain import PretrainConfig
from fulmen_trainer.reward import RewardConfig
from fulmen_trainer.sft import SFTConfig

#: The recipe that ships with the package.
DEFAULT_RECIPE = Path(str(files("fulmen_demo") / "recipe.toml"))


class PreferenceConfig(BaseModel):
    """How the preference set is made: prompts that base and fine-tuned model answer, and the rules of a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(600, ge=2)  # for each of the two models
    sources: tuple[str, ...] = ("arithmetic",)  # where they come from, and those of the online rounds
    pairs: PairConfig = PairConfig()


class EvaluationConfig(BaseModel):
    """What the checkpoints are asked at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items_per_task: int = Field(200, ge=1)
    arithmetic: tuple[str, ...] = ("addition", "subtraction")  # tasks of the arithmetic figure
    max_tokens: int = Field(24, ge=1)
    reward_temperature: float = Field(1.0, ge=0)
    continuation_tokens: int = Field(96, ge=1)


class DemoConfig(BaseModel):
    """The main job. Every step is made again when its part of this, or what it is made from, changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path = Path("runs/demo")
    backend: str = "auto"
    data: DataRecipe
    instructions: tuple[str, ...] = ("arithmetic", "strings")  # sources of fine-tuning
    heldout_items: str = "heldout-tasks"
    heldout_text: str = "stdlib-heldout"
    pretrain: PretrainConfig
    sft: SFTConfig
    preferences: PreferenceConfig
    reward: RewardConfig
    dpo: DPOConfig
    evaluation: EvaluationConfig = EvaluationConfig()
