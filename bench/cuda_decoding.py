"""One decode step of each contestant on a GPU: every sequence has one more token.

Legend: B sequences, L layers, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from train_peers import qwen3

from fulmen_backend_cuda.backend import CudaBackend
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep

_STEP_TOKENS = 8192
_ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Decoding:
    """A step to be called again and again, the bytes that it has to read, and what it runs with."""

    step: Callable[[], object]
    bytes_read: float
    settings: Mapping[str, str]
    close: Callable[[], None]


def decode_fulmen(config: ModelConfig, folder: Path, batch: int, context: int, backend: CudaBackend) -> Decoding:
    """`batch` sequences of `context` tokens in a runner; `folder` keeps the model from one call to the next."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        save_model(Transformer(config), folder)
    longest = config.max_position_embeddings
    limits = EngineLimits(max_sequences=batch, max_context=longest, max_step_tokens=max(_STEP_TOKENS, batch))
    runner = backend.load_runner(folder, limits, "bfloat16")
    tokens = torch.randint(config.vocab_size, (batch, context)).tolist()
    for slot, row in enumerate(tokens):
        for start in range(0, context, _STEP_TOKENS):
            runner.step([SequenceStep(slot, start, row[start : start + _STEP_TOKENS])])
    position = count(context)

    def step() -> None:
        at = next(position)
        logits_BV = runner.step([SequenceStep(slot, at, [7]) for slot in range(batch)])
        logits_BV.argmax(-1)

    choices: Mapping[str, str] = getattr(runner, "choices", {})
    return Decoding(step, bytes_of_step(config, batch, context), choices, runner.close)


def decode_transformers(config: ModelConfig, batch: int, context: int, device: str) -> Callable[[], object]:
    """The same with transformers' Qwen3-MoE, which keeps whole contexts in every layer."""
    model = qwen3(config).to(device, torch.bfloat16).eval()
    with torch.inference_mode():
        rows = torch.randint(config.vocab_size, (batch, context), device=device)
        cache = model(input_ids=rows, logits_to_keep=1).past_key_values
    latest = torch.full((batch, 1), 7, device=device)

    @torch.inference_mode()
    def step() -> object:
        logits_BV = model(input_ids=latest, past_key_values=cache).logits[:, -1]
        return logits_BV.float().cpu().numpy().argmax(-1)

    return step


def bytes_of_step(config: ModelConfig, batch: int, context: int) -> float:
    """Bytes that a step of `batch` sequences has to read: weights once, of the experts those that are chosen.

    Experts are taken to be chosen evenly: ``E (1 - (1 - K/E)^B)`` of them are on the average.
    """
    elements = 0.0
    width, head = config.hidden_size, config.head_dim
    for layer in LayerPlan.of(config):
        elements += 2 * width * config.num_attention_heads * head
        elements += 2 * width * config.num_key_value_heads * head * layer.owns_kv
        if layer.ffn == "dense":
            elements += 3 * width * config.intermediate_size
            continue
        chosen = config.num_experts * (1 - (1 - config.num_experts_per_tok / config.num_experts) ** batch)
        elements += 3 * width * config.moe_intermediate_size * (chosen + config.num_shared_experts)
        elements += width * config.num_experts
    elements += width * config.vocab_size
    spec = CacheSpec.of(config)
    layers = LayerPlan.of(config)
    seen = sum(context if layer.window is None else min(context, layer.window) for layer in layers)
    return _ELEMENT_BYTES * (elements + batch * seen * spec.elements_per_token)
