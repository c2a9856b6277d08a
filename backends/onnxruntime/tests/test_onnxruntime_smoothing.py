"""Outliers moved into the weights: nothing changes but what rounding costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_backend_onnxruntime.smoothing import Smoothing
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.models import fresh_seed, random_model

from .conftest import FAMILIES, LIGHTNING, family

#: As large as those of SmolLM2.
OUTLIER = 40.0


def with_outliers(config: ModelConfig, seed: int) -> Transformer:
    """A model with a channel that is large after every norm, and read by small weights, as training leaves it."""
    network = random_model(config, seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("attention_norm.weight", "ffn_norm.weight")) or name == "norm.weight":
                weight[5] *= OUTLIER
            elif name.endswith(("q_proj.weight", "kv_proj.weight", "gate_proj.weight", "gate_up.weight", "_EGD")):
                weight[..., 5] /= OUTLIER
            elif name.endswith("router.weight") or name == "head.weight":
                weight[:, 5] /= OUTLIER
    return network


@torch.inference_mode()
@pytest.mark.parametrize("name", [*FAMILIES, "lightning"])
def test_smoothed_weights_are_the_same_model(name: str) -> None:
    config = LIGHTNING if name == "lightning" else family(name)
    network = with_outliers(config, fresh_seed())
    smoothing = Smoothing.of(network)
    assert smoothing.outputs
    network = network.double()
    tokens_BT = torch.randint(config.vocab_size, (2, 40))
    hidden_BTD = network(tokens_BT).hidden_BTD
    logits_BTV = network.logits(hidden_BTD)
    for key, weight in network.state_dict().items():
        weight.copy_(torch.from_numpy(smoothing.smoothed(key, weight.numpy())))
    found_BTD = network(tokens_BT).hidden_BTD
    torch.testing.assert_close(network.logits(found_BTD), logits_BTV, atol=1e-5, rtol=1e-5)
    if not config.tie_word_embeddings:
        found_BTD = found_BTD * torch.from_numpy(smoothing.outputs["norm.weight"])
    torch.testing.assert_close(found_BTD, hidden_BTD, atol=1e-4, rtol=1e-5)


def test_smoothing_does_not_depend_on_the_run() -> None:
    network = random_model(LIGHTNING, fresh_seed())
    one, other = Smoothing.of(network), Smoothing.of(network)
    for name, factors_K in one.inputs.items():
        np.testing.assert_array_equal(factors_K, other.inputs[name])


def test_channels_that_hold_nothing_are_no_reason_to_divide_by_it() -> None:
    network = random_model(family("llama"), 0)
    with torch.no_grad():
        network.blocks[0].attention_norm.weight.zero_()
        network.blocks[0].ffn_norm.weight[3] = 0
        network.blocks[1].ffn_norm.weight[4] = torch.nan
    smoothing = Smoothing.of(network)
    assert (smoothing.outputs["blocks.0.attention_norm.weight"] == 1).all()
    for factors in smoothing.outputs.values():
        assert np.isfinite(factors).all()
        assert (factors > 0).all()


def answers(folder: Path, runner_of: str, tokens: list[int]) -> NDArray[np.float32]:
    runner = OnnxRunner(folder / runner_of, EngineLimits(1, 64, threads=1))
    try:
        hidden_TD = runner.hidden([SequenceStep(0, 0, tokens, wanted=len(tokens))])
    finally:
        runner.close()
    return hidden_TD


@torch.inference_mode()
def test_outliers_cost_less_and_hidden_states_are_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 512, "tie_word_embeddings": False}
    config = family("llama").model_copy(update=wide)
    network = with_outliers(config, fresh_seed())
    (tmp_path / "model").mkdir()
    save_model(network, tmp_path / "model")
    OnnxExporter().export(tmp_path / "model", tmp_path / "smooth", ExportOptions(quantize="int8"))
    monkeypatch.setattr(Smoothing, "of", lambda _: Smoothing.none())
    OnnxExporter().export(tmp_path / "model", tmp_path / "plain", ExportOptions(quantize="int8"))
    tokens = np.random.default_rng().integers(0, config.vocab_size, 40).tolist()
    exact_TD = network(torch.tensor([tokens])).hidden_BTD[0].numpy()
    off = {
        kind: np.median(np.linalg.norm(answers(tmp_path, kind, tokens) - exact_TD, axis=1))
        / np.median(np.linalg.norm(exact_TD, axis=1))
        for kind in ("smooth", "plain")
    }
    assert off["smooth"] < 0.3, off  # divided by their factors, they would be off by 0.8
    assert off["smooth"] < off["plain"] / 2, off
