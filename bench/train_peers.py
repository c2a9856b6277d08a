"""One training step of each contestant: Fulmen through its public path, and a Qwen3-MoE of the same dimensions.

Every step has another batch, as in training: experts get other numbers of rows each time. The learning rate is next to
nothing, which costs a step as much as any other: routers stay as they were initialised, where the two are alike.
Trained on random tokens they would collapse, each in its own time, until all tokens go to the same few experts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fulmen_core.backend import Backend, TrainPlan
from fulmen_core.model.balance import balance_losses
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_trainer.linear_loss import linear_cross_entropy
from fulmen_trainer.optimizers import OptimizerConfig, build_optimizer

DOCUMENT = 300  # tokens of a document on the average
BATCHES = 64  # until they repeat
LEARNING_RATE = 1e-7

Step = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A step to be called again and again, which returns the loss, and what it runs with."""

    step: Step
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of packed documents, as pre-training makes them."""

    ids_BT1: Tensor
    positions_BT: Tensor
    segments_BT: Tensor

    @classmethod
    def random(cls, vocabulary: int, rows: int, tokens: int, seed: int = 0, device: str = "cpu") -> Batch:
        """Documents of random lengths; tokens as frequent as words (Zipf), so that experts are not loaded evenly."""
        generator = np.random.default_rng(seed)
        share_V = 1 / np.arange(1, vocabulary + 1)
        ids = generator.choice(vocabulary, size=(rows, tokens + 1), p=share_V / share_V.sum())
        begins = generator.random((rows, tokens)) < 1 / DOCUMENT
        begins[:, 0] = True
        at = np.broadcast_to(np.arange(tokens), (rows, tokens))
        positions = at - np.maximum.accumulate(np.where(begins, at, 0), axis=1)
        arrays = (ids, positions, begins.cumsum(axis=1, dtype=np.int64))
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def _batches(vocabulary: int, rows: int, tokens: int, device: str = "cpu") -> Iterator[Batch]:
    return cycle([Batch.random(vocabulary, rows, tokens, seed, device) for seed in range(BATCHES)])


def fulmen(
    config: ModelConfig,
    rows: int,
    tokens: int,
    *,
    optimizer: str = "adamw",
    compile_model: bool = False,
    experts: Literal["auto", "fp8"] = "auto",
    backend: Backend | None = None,
) -> Contestant:
    """A step as `fulmen_trainer.pretrain` makes it: a backend's model, chunked loss, balance losses, clipping.

    The backend is the CPU's unless another one is given.
    """
    torch.manual_seed(0)
    model = Transformer(config)
    backend = backend if backend is not None else Registry.discover().backend("cpu")
    program = backend.prepare_training(model, TrainPlan(compile=compile_model, experts=experts))
    device = str(model.embed.weight.device)
    products = torch.bfloat16 if program.choices["dtype"] == "bfloat16" else torch.float32
    settings = OptimizerConfig.model_validate({"name": optimizer, "lr": LEARNING_RATE})
    updates = build_optimizer(model, settings, products=products)
    batches = _batches(config.vocab_size, rows, tokens, device)
    weights_N = torch.full((rows * tokens,), 1 / (rows * tokens), device=device)

    def step() -> float:
        batch = next(batches)
        with program.autocast():
            output = program.model(
                batch.ids_BT1[:, :-1], positions_BT=batch.positions_BT, segments_BT=batch.segments_BT
            )
            loss = linear_cross_entropy(
                output.hidden_BTD.flatten(0, 1),
                model.head_weight_VD,
                batch.ids_BT1[:, 1:].flatten(),
                weights_N,
                model.operations.cross_entropy,
            )
        total = loss
        if output.router is not None:
            total = loss + balance_losses(output.router, config.balance, config.num_experts_per_tok).total
        torch.autograd.backward(total)
        updates.step(1.0)
        return float(loss.detach())

    return Contestant(step, {**program.choices, "optimizer": optimizer})


#: What transformers is tried with: experts, products, compiled or not. `batched_mm` is left out: it copies the weights
#: of every (token, expert) pair, gigabytes a layer in a step of 4,096 tokens.
TRANSFORMERS_SETTINGS = tuple(
    {"experts": experts, "dtype": dtype, "compile": compiled}
    for compiled in ("no", "yes")
    for experts in ("grouped_mm", "eager")
    for dtype in ("bfloat16", "float32")
    if compiled == "no" or experts == "grouped_mm"
)


def transformers_missing() -> str | None:
    """Why transformers cannot be measured, or None."""
    return None if importlib.util.find_spec("transformers") else "transformers is not installed"


def transformers(
    config: ModelConfig, rows: int, tokens: int, settings: Mapping[str, str], device: str = "cpu"
) -> Contestant:
    """Qwen3-MoE's step: full attention (SDPA) in every layer over whole rows, no balance loss, fused AdamW."""
    model = qwen3(config).to(device)
    model.set_experts_implementation(settings["experts"])
    model.train()
    updates = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    called = torch.compile(model) if settings["compile"] == "yes" else model
    batches = _batches(config.vocab_size, rows, tokens, device)

    def step() -> float:
        ids_BT = next(batches).ids_BT1[:, :-1]
        low = settings["dtype"] == "bfloat16"
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            loss = called(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        updates.step()
        updates.zero_grad()
        return float(loss.detach())

    return Contestant(step, {**settings, "attention": model.config._attn_implementation, "optimizer": "adamw"})


def qwen3(config: ModelConfig) -> Any:
    """Transformers' Qwen3-MoE with the dimensions of `config`, randomly initialised."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.moe_intermediate_size,
        "norm_topk_prob": True,
        "tie_word_embeddings": True,
        "max_position_embeddings": config.max_position_embeddings,
    }
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes))
