"""The hidden states of the last tokens, and the logits of several, as the model has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.model.checkpoint import load_model
from fulmen_core.runner import EngineLimits, SequenceStep

from .conftest import Exported


@torch.inference_mode()
def test_hidden_states_are_those_after_the_final_norm(afmoe: Exported) -> None:
    runner = OnnxRunner(afmoe.artefact, EngineLimits(4, 64, threads=1))
    random = np.random.default_rng()
    prompts = [random.integers(0, runner.vocab_size, length).tolist() for length in (9, 1, 12, 30)]
    wanted = (1, 1, 12, 4)
    batch = [SequenceStep(slot, 0, prompt, wanted=wanted[slot]) for slot, prompt in enumerate(prompts)]
    found_RD = runner.hidden(batch)
    runner.close()
    network = load_model(afmoe.model)
    expected = [
        network(torch.tensor([prompt])).hidden_BTD[0, -count:] for prompt, count in zip(prompts, wanted, strict=True)
    ]
    np.testing.assert_allclose(found_RD, torch.cat(expected).numpy(), atol=1e-4, rtol=0)
    assert OnnxRuntimeBackend().capabilities().embed


@pytest.mark.parametrize("wanted", [0, 4])
def test_more_results_than_tokens_are_refused(afmoe: Exported, wanted: int) -> None:
    runner = OnnxRunner(afmoe.artefact, EngineLimits(1, 16, threads=1))
    with pytest.raises(ValueError, match=f"{wanted} results are wanted of 3 tokens"):
        runner.step([SequenceStep(0, 0, [1, 2, 3], wanted=wanted)])
