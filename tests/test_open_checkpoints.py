"""A model of transformers, imported by the command, answers on the CPU's runners as it does in transformers."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fulmen_backend_cpu.backend import CpuBackend
from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core.cli import main
from fulmen_core.runner import EngineLimits, Runner, SequenceStep

transformers = pytest.importorskip("transformers")

COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 32}},
    "mistral": {"sliding_window": 9},
    "mixtral": {"num_local_experts": 4, "sliding_window": 7},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "qwen3_moe": EXPERTS | {"head_dim": 16, "mlp_only_layers": [0]},
    "olmoe": EXPERTS | {"clip_qkv": 0.9},
    "afmoe": EXPERTS
    | {"head_dim": 16, "sliding_window": 9, "num_shared_experts": 1, "mup_enabled": True, "route_scale": 2.0},
}
LIMITS = EngineLimits(max_sequences=2, max_context=96, max_step_tokens=32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def make(family: str, seed: int) -> torch.nn.Module:
    """Random weights; norms and biases too, which begin as ones and zeros."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **COMMON | FAMILIES[family])
    model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, tensor in model.named_parameters():
        if tensor.ndim == 1:
            tensor += 0.2 * torch.randn_like(tensor)
        elif "router" in name or name.endswith("gate.weight"):
            tensor.copy_(torch.randn_like(tensor) / 2)
    return model


def answer(runner: Runner, prompt: list[int], tokens: int) -> tuple[list[int], list[np.ndarray]]:
    """Greedy ids and the logits that chose them: the prompt in two chunks, then token by token."""
    runner.step([SequenceStep(0, 0, prompt[:11])])
    logits = [runner.step([SequenceStep(0, 11, prompt[11:])])[0]]
    ids = [int(logits[-1].argmax())]
    while len(ids) < tokens:
        logits.append(runner.step([SequenceStep(0, len(prompt) + len(ids) - 1, ids[-1:])])[0])
        ids.append(int(logits[-1].argmax()))
    return ids, logits


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """The same model in float64, norms aside: in float32, transformers alone may stray as far as we are allowed to."""
    model = copy.deepcopy(model).double()
    model.set_experts_implementation("eager")  # type: ignore[operator]  # grouped products know no float64
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_an_imported_model_answers_as_in_transformers(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(2**31)
    theirs = make(family, seed)
    theirs.save_pretrained(tmp_path / "original")  # type: ignore[operator]
    assert main(["import", str(tmp_path / "original"), "--out", str(tmp_path / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == family

    theirs = in_float64(theirs)
    prompt = torch.randint(3, 97, (17,)).tolist()
    runners = {
        "native": CpuBackend().load_runner(tmp_path / "model", LIMITS),
        "torch": CpuRunner(tmp_path / "model", LIMITS),
    }
    for name, runner in runners.items():
        ids, logits = answer(runner, prompt, 24)
        with torch.inference_mode():
            expected_TV = theirs(torch.tensor([prompt + ids[:-1]])).logits[0, len(prompt) - 1 :].numpy()
        worst = max(np.abs(got_V - expected_V).max() for got_V, expected_V in zip(logits, expected_TV, strict=True))
        assert worst < 1e-4, f"{name}, seed {seed}"
        # each id is transformers' likeliest after all before it, so its own greedy answer is the same
        margins = expected_TV.max(1) - np.take_along_axis(expected_TV, np.array(ids)[:, None], 1)[:, 0]
        assert margins.max() < 1e-4, f"{name}, seed {seed}"
