"""A nano model, its tokenizer, and the smallest backend there can be: float32, and a runner without a cache."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fulmen_core.backend import Capabilities, Dtype, TrainPlan
from fulmen_core.descriptors import Availability, BackendInfo
from fulmen_core.hooks import hookimpl
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_trainer.data.tasks import tasks
from fulmen_trainer.optimizers import OptimizerConfig
from fulmen_trainer.sft import SFTConfig, fine_tune

CONTEXT = 64


@dataclass
class PlainProgram:
    """The model as it is."""

    model: nn.Module
    choices: Mapping[str, str] = field(default_factory=lambda: {"dtype": "float32"})

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()


class RecomputingRunner:
    """Runs every sequence from its beginning at every step: slow, and obviously right."""

    def __init__(self, model: Path, limits: EngineLimits) -> None:
        self._model = load_model(model)
        self.cache = CacheSpec.of(self._model.config)
        self.limits = limits
        self.vocab_size = self._model.config.vocab_size
        self._tokens: dict[int, list[int]] = {}

    @torch.no_grad()
    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        rows = []
        for part in batch:
            known = [*self._tokens.get(part.slot, [])[: part.start], *part.token_ids]
            self._tokens[part.slot] = known
            rows.append(self._model.logits(self._model(torch.tensor([known])).hidden_BTD[0, -1]).numpy())
        return np.stack(rows)

    def release(self, slot: int) -> None:
        self._tokens.pop(slot, None)

    def close(self) -> None:
        self._tokens.clear()


class PlainBackend:
    name = "plain"

    def capabilities(self) -> Capabilities:
        return Capabilities(train=True, serve=True, formats=("checkpoint",), train_dtypes=("float32",))

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> PlainProgram:
        return PlainProgram(model)

    def load_runner(self, model: Path, limits: EngineLimits, dtype: Dtype = "float32") -> RecomputingRunner:
        return RecomputingRunner(model, limits)


def plain_plugin() -> types.ModuleType:
    module = types.ModuleType("plain_backend_plugin")

    @hookimpl
    def fulmen_backends() -> list[BackendInfo]:
        return [BackendInfo("plain", "for tests", lambda: Availability(ok=True), PlainBackend)]

    module.fulmen_backends = fulmen_backends  # type: ignore[attr-defined]
    return module


@dataclass
class World:
    """A model directory with its tokenizer, task items, and a registry that can train and sample it."""

    root: Path
    registry: Registry
    tokenizer: Tokenizer
    config: ModelConfig
    items: list[Mapping[str, Any]]

    @property
    def model(self) -> Path:
        return self.root / "model"

    def write(self, name: str, records: Sequence[Mapping[str, Any]]) -> Path:
        path = self.root / name
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
        return path

    def work(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path


def nano_config(vocab_size: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        layer_pattern="SF",
        sliding_window=16,
        intermediate_size=64,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        balance=BalanceConfig(expert_groups=2, partitions=2),
    )


@pytest.fixture(scope="session")
def task_items() -> list[Mapping[str, Any]]:
    return list(tasks(names=("addition", "reverse"), count=40, max_digits=1, max_letters=3))


@pytest.fixture(scope="session")
def tokenizer(task_items: list[Mapping[str, Any]]) -> Tokenizer:
    return ByteLevelTokenizer.train([message["content"] for item in task_items for message in item["messages"]], 384)


@pytest.fixture
def world(tmp_path: Path, tokenizer: Tokenizer, task_items: list[Mapping[str, Any]]) -> World:
    config = nano_config(tokenizer.vocab_size)
    model = Transformer(config)
    (tmp_path / "model").mkdir()
    save_model(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    return World(tmp_path, Registry.of(plain_plugin(), "fulmen_trainer.plugin"), tokenizer, config, task_items)


def dying_plugin(stage: str, step: int) -> types.ModuleType:
    """A listener that fails at the first record of `stage` from `step` on: the run dies between two checkpoints."""
    module = types.ModuleType("dying_plugin")

    @hookimpl
    def fulmen_step_end(run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        if stage == dies_in and step >= dies_at:
            raise RuntimeError("killed")

    dies_in, dies_at = stage, step
    module.fulmen_step_end = fulmen_step_end  # type: ignore[attr-defined]
    return module


@pytest.fixture
def dying() -> Callable[[str, int], Registry]:
    """A registry with which training dies in a stage after a step."""
    return lambda stage, step: Registry.of(plain_plugin(), "fulmen_trainer.plugin", dying_plugin(stage, step))


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, task_items: list[Mapping[str, Any]]) -> Path:
    """A model directory fine-tuned just enough to end its answers."""
    root = tmp_path_factory.mktemp("tuned")
    start, work = root / "start", root / "tuned"
    start.mkdir()
    work.mkdir()
    save_model(Transformer(nano_config(tokenizer.vocab_size)), start)
    tokenizer.save(start)
    data = root / "sft.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in task_items), "utf-8")
    config = SFTConfig(total_steps=25, batch_size=8, sequence_length=64, optimizer=OptimizerConfig(lr=1e-2))
    fine_tune(start, data, config=config, registry=Registry.of(plain_plugin()), work=work)
    return work


@pytest.fixture(scope="session")
def nano(tokenizer: Tokenizer) -> ModelConfig:
    return nano_config(tokenizer.vocab_size)
