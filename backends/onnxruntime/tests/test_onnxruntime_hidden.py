"""The hidden states of the last tokens, and the logits of several, as the model has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.model.checkpoint import load_model
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.exporter.exported import Exported


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


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([SequenceStep(0, 0, [1, 2, 3], wanted=0)], "0 results are wanted of 3 tokens"),
        ([SequenceStep(0, 0, [1, 2, 3], wanted=4)], "4 results are wanted of 3 tokens"),
        ([SequenceStep(0, 0, [])], "1 results are wanted of 0 tokens"),
        ([SequenceStep(0, 0, [1, -1])], "a token is outside the 61 of the model"),
        ([SequenceStep(0, 0, [61])], "a token is outside the 61 of the model"),
        ([SequenceStep(0, 15, [1, 2])], "position 16 is outside the 16 reserved"),
        ([SequenceStep(0, -1, [1])], "position -1 is outside the 16 reserved"),
        ([SequenceStep(2, 0, [1])], r"slots \[2\] are not different ones of 0 to 1"),
        ([SequenceStep(1, 0, [1]), SequenceStep(1, 0, [1])], r"slots \[1, 1\] are not different ones"),
        ([], r"slots \[\] are not different ones"),
    ],
)
def test_what_the_graph_would_take_on_trust_is_refused(
    afmoe: Exported, steps: list[SequenceStep], sentence: str
) -> None:
    runner = OnnxRunner(afmoe.artefact, EngineLimits(2, 16, threads=1))
    before = runner.step([SequenceStep(0, 0, [1, 2])])
    with pytest.raises(ValueError, match=sentence):
        runner.step(steps)
    np.testing.assert_array_equal(runner.step([SequenceStep(0, 0, [1, 2])]), before)
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.step(steps)
