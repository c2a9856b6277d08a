"""`fulmen pretrain` turns a data run into a model, once, and refuses in one sentence what it cannot use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import main
from fulmen_core.files import hash_tree
from fulmen_core.registry import Registry
from fulmen_trainer.data.pipeline import build_data
from fulmen_trainer.data.recipe import DataRecipe

RECIPE = """
preset = "nano"
steps = 8
batch_size = 2
sequence_length = 24
heldout = ["held"]
log_every = 4

[model]
hidden_size = 32
num_hidden_layers = 2
layer_pattern = "SF"
num_attention_heads = 2
head_dim = 16
num_experts = 4
moe_intermediate_size = 16
balance = {expert_groups = 2, partitions = 2}

[stages.initial]
share = 0.5
weights = {text = 1.0}
[stages.middle]
share = 0.25
weights = {text = 1.0}
[stages.decay]
share = 0.25
weights = {text = 1.0}
"""


@pytest.fixture(scope="module")
def data_run(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, training_text: Callable[[int, int], str]
) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, seeds in (("text", range(300, 330)), ("held", range(400, 403))):
        (root / name).mkdir()
        for seed in seeds:
            (root / name / f"{seed}.txt").write_text(training_text(seed, 60))
    recipe: dict[str, Any] = {
        "run": root / "run",
        "sources": {
            "text": {"source": "folder", "settings": {"path": str(root / "text")}},
            "held": {"source": "folder", "settings": {"path": str(root / "held")}, "purpose": "heldout"},
        },
        "guard": {"name": "none"},
        "tokenizer": {"vocab_size": 384},
    }
    build_data(DataRecipe.model_validate(recipe), registry)
    return root / "run"


@pytest.fixture
def arguments(data_run: Path, tmp_path: Path) -> list[str]:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    return ["pretrain", "--recipe", str(recipe), f"data={data_run}", f"run={tmp_path / 'run'}"]


def test_it_leaves_a_model_and_prints_what_it_measured(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert Path(result["model"]) == tmp_path / "run" / "base"
    assert {path.name for path in Path(result["model"]).iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "metrics.jsonl",
        "fork",
    }
    assert result["heldout_documents"] == 3
    assert result["heldout_bits_per_byte"] > 0
    assert "step 8/8" in printed.err


def test_the_same_command_again_does_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    before = hash_tree(tmp_path / "run" / "base")
    capsys.readouterr()
    assert main([*arguments, "checkpoint_every=3"]) == 0
    assert "(unchanged)" in capsys.readouterr().err
    assert hash_tree(tmp_path / "run" / "base") == before
    assert main([*arguments, "seed=1"]) == 0
    assert hash_tree(tmp_path / "run" / "base") != before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stepps=3"], "did you mean 'steps'"),
        (["data=nowhere"], "the data run has no"),
        (['heldout=["helt"]'], "there is no held-out source 'helt'"),
        (["stages.decay.weights.texd=1"], "shards-texd"),
        (["--recip", "x"], "--recipe"),
    ],
    ids=["key", "data", "heldout", "source", "option"],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *words]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
