"""What the trainer's tests share: one thread, a small tokenizer, shards of three sources, and a tiny model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_core.registry import Registry
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_trainer.data.shards import ShardSet, open_shards, write_shards
from fulmen_trainer.data.tokenising import tokenise

WORDS = [
    "def",
    "return",
    "import",
    "class",
    "self",
    "value",
    "index",
    "token",
    "layer",
    "window",
    "expert",
    "router",
    "cache",
    "loss",
    "step",
    "batch",
]


def make_text(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) + rng.choice(["", "", ".", "\n", "(1)"]) for _ in range(words))


@pytest.fixture(scope="session")
def training_text() -> Callable[[int, int], str]:
    """``(seed, words)`` to a text."""
    return make_text


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def registry() -> Registry:
    """Everything that is installed; the tests' backend arrives through it."""
    return Registry.discover()


@pytest.fixture(scope="session")
def training_tokenizer() -> Tokenizer:
    return ByteLevelTokenizer.train((make_text(seed, 400) for seed in range(20)), 384)


@pytest.fixture(scope="session")
def shard_sets(training_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardSet]:
    """Three sources: ``web``, ``code`` and ``tasks``, the last one of conversations."""
    root = tmp_path_factory.mktemp("shards")
    sources: dict[str, list[dict[str, Any]]] = {
        "web": [{"text": make_text(seed, 20 + seed % 60)} for seed in range(100, 160)],
        "code": [{"text": make_text(seed, 40)} for seed in range(200, 230)],
        "tasks": [
            {
                "messages": [
                    {"role": "user", "content": f"What is {n}+{n + 1}?"},
                    {"role": "assistant", "content": str(2 * n + 1)},
                ]
            }
            for n in range(60)
        ],
    }
    for name, records in sources.items():
        write_shards(root / name, tokenise(records, training_tokenizer), tokenizer=training_tokenizer)
    return {name: open_shards(root / name, tokenizer=training_tokenizer) for name in sources}


@pytest.fixture(scope="session")
def tiny_model() -> dict[str, Any]:
    """Keys over the preset nano: every mechanism at a size that trains thousands of tokens a second."""
    return {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "layer_pattern": "SF",
        "intermediate_size": 64,
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "balance": {"expert_groups": 2, "partitions": 2},
    }


@pytest.fixture(scope="session")
def pretrain_settings(tiny_model: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Settings of a small `PretrainConfig`, with changes."""

    def settings(**changes: Any) -> dict[str, Any]:
        return {
            "preset": "nano",
            "model": tiny_model,
            "steps": 16,
            "batch_size": 4,
            "sequence_length": 24,
            "stages": {
                "initial": {"share": 0.5, "weights": {"web": 1.0}},
                "middle": {"share": 0.25, "weights": {"web": 0.5, "code": 0.5}},
                "decay": {"share": 0.25, "weights": {"code": 0.5, "tasks": 0.5}},
            },
            "optimizer": {"lr": 3e-3},
            "warmup": 2,
            "backend": "cpu",
            "dtype": "float32",
            "checkpoint_every": 5,
            "log_every": 2,
            **changes,
        }

    return settings


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"
