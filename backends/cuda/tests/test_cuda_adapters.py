"""Sequences with adapters get what the model with merged weights computes, beside others that have none.

Legend: I inputs, O outputs of a projection, R rank, T positions.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from fulmen_backend_cuda.runner import CudaRunner
from fulmen_backend_cuda.support import EMULATED
from fulmen_core.adapters.adapter import load_adapter
from fulmen_core.adapters.projections import projection_places
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.models import save_random_model

from .random_steps import reference_logits

CONFIG = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=90,
    sliding_window=20,
    intermediate_size=32,
    initializer_range=0.3,
)
CHANGED = ("q_proj", "v_proj", "o_proj", "down_proj")


def write_adapter(folder: Path, random: np.random.Generator, rank: int) -> Path:
    """A PEFT folder with random matrices for the projections of `CHANGED` in every layer."""
    folder.mkdir()
    tensors = {}
    for module, place in projection_places(CONFIG).items():
        if module.endswith(CHANGED):
            key = f"base_model.model.{module}"
            tensors[f"{key}.lora_A.weight"] = random.standard_normal((rank, place.inputs)).astype(np.float32) / 6
            tensors[f"{key}.lora_B.weight"] = random.standard_normal((place.outputs, rank)).astype(np.float32) / 3
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(CHANGED)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@torch.no_grad()
def merged(directory: Path, folder: Path | None) -> Transformer:
    """The model in float64 with ``B A`` added to its weights."""
    model = load_model(directory, torch.float64)
    if folder is not None:
        for (layer, name), delta in load_adapter(folder, CONFIG, 64).deltas.items():
            block = model.block(layer)
            assert isinstance(block.ffn, DenseFeedForward)
            assert block.attention.kv_proj is not None or name != "v"
            weight_OI = {
                "q": lambda a: a.attention.q_proj.weight,
                "v": lambda a: a.attention.kv_proj.weight.chunk(2)[1],
                "o": lambda a: a.attention.o_proj.weight,
                "down": lambda a: a.ffn.down.weight,
            }[name](block)
            weight_OI += torch.from_numpy(delta.b_OR.astype(np.float64) @ delta.a_RI.astype(np.float64))
    return model


def test_sequences_with_and_without_adapters_share_steps(tmp_path: Path) -> None:
    random = np.random.default_rng(17)
    (tmp_path / "model").mkdir()
    directory = save_random_model(CONFIG, 17, tmp_path / "model")
    folders = [None, write_adapter(tmp_path / "a", random, 3), write_adapter(tmp_path / "b", random, 8)]
    limits = EngineLimits(3, 90, 200, adapters=2)
    runner = CudaRunner(directory, limits, "float32", quantize=None, device="cpu", support=EMULATED, padded=True)
    numbers = [0, *[runner.load_adapter(folder) for folder in folders if folder is not None]]
    tokens = random.integers(0, 61, (3, 70)).tolist()
    cuts = [0, 30, 31, 32, 50, 51]
    got: list[dict[int, np.ndarray]] = [{}, {}, {}]
    for begin, end in pairwise(cuts):
        batch = [
            SequenceStep(slot, begin, row[begin:end], wanted=end - begin, adapter=number)
            for slot, (row, number) in enumerate(zip(tokens, numbers, strict=True))
        ]
        rows = iter(runner.step(batch))
        for slot in range(3):
            got[slot] |= {position: next(rows) for position in range(begin, end)}
    # a decode step of fixed size after one with adapters: theirs must not linger
    got[0][51] = runner.step([SequenceStep(0, 51, [tokens[0][51]])])[0]
    for row, folder, logits in zip(tokens, folders, got, strict=True):
        expected_TV = reference_logits(merged(directory, folder), row)
        for position, logits_V in logits.items():
            np.testing.assert_allclose(logits_V, expected_TV[position], atol=2e-4, rtol=0)
    assert np.abs(got[1][50] - reference_logits(merged(directory, None), tokens[1])[50]).max() > 0.1
