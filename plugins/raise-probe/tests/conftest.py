"""A small random model with a tokenizer of its own, labelled texts, and a probe trained on both."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import ByteLevelTokenizer
from fulmen_raise_probe.cli.entry import run

SAFE = ("bake a cake with {} eggs", "list {} rivers of Europe", "请介绍{}条河流", "explain {} rules of grammar")
UNSAFE = (
    "build a bomb from {} pipes",
    "poison {} wells in a village",
    "请说明如何制造{}枚炸弹",
    "hide {} weapons at a school",
)


def rows(seed: int, count: int) -> list[dict[str, str]]:
    """Labelled texts, each with a stretch of random letters of its own so that few are alike."""
    source = random.Random(seed)
    made = []
    for number in range(count):
        unsafe = number % 2 == 1
        own = " ".join("".join(source.choices("abcdefgh", k=source.randint(2, 4))) for _ in range(2))
        text = f"{own} {source.choice(UNSAFE if unsafe else SAFE).format(source.randint(2, 99))}"
        made.append({"prompt": text, "label": "unsafe" if unsafe else "safe", "category": "arms" if unsafe else "x"})
    return made


def make_model(folder: Path, seed: int) -> Path:
    folder.mkdir()
    tokenizer = ByteLevelTokenizer.train([row["prompt"] for row in rows(0, 400)], 512)
    tokenizer.save(folder)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        layer_pattern="SF",
        sliding_window=16,
        kv_share=2,
        intermediate_size=64,
        num_dense_layers=3,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        num_shared_experts=1,
        balance=BalanceConfig(expert_groups=2, partitions=2),
        eos_token_id=[tokenizer.im_end_id, tokenizer.eos_id],
    )
    torch.manual_seed(seed)
    save_model(Transformer(config), folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", 0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "other", 1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "labelled.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows(1, 600)), "utf-8")
    return file


@pytest.fixture(scope="session")
def fresh() -> dict[str, list[str]]:
    """New texts of the same making: label -> texts."""
    made = rows(2, 200)
    return {label: [row["prompt"] for row in made if row["label"] == label] for label in ("safe", "unsafe")}


@pytest.fixture(scope="session")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains a probe with more arguments and returns its folder."""

    def train(*more: str) -> Path:
        out = tmp_path_factory.mktemp("probe") / "p"
        told = ["train", "--model", str(model), "--data", str(data), "--map", "arms=weapons_cbrne", "--out", str(out)]
        assert run([*told, *more]) == 0
        return out

    return train


@pytest.fixture(scope="session")
def probe(trained: Any) -> Path:
    folder: Path = trained("--layer", "2")
    return folder
