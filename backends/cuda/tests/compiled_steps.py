"""Run by pytest in a process of its own: steps whose parts torch compiled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_cuda import runner as runner_module
from fulmen_backend_cuda import step_parts
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.compilation import why_not_compiled
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.models import save_random_model

from .random_steps import Player, assert_equal_to_the_model, reference_logits
from .small_runners import BLOCK, CONTEXT, make, small_config

if reason := why_not_compiled("cpu"):
    pytest.skip(f"this machine cannot compile: {reason}", allow_module_level=True)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a short context."""
    monkeypatch.setattr(runner_module, "_BLOCK_TOKENS", BLOCK)


def test_compiled_parts_compute_the_same_for_any_number_of_rows(tmp_path: Path) -> None:
    # Without experts: torch compiles their grouped products in bfloat16 only.
    config = small_config(num_hidden_layers=4, layer_pattern="SF", num_experts=0, num_experts_per_tok=0)
    directory = save_random_model(config, 8, tmp_path)
    runner = make(directory, EngineLimits(5, CONTEXT, 40, cached_sequences=2), padded=True, compiles=True)
    assert runner.choices["compile"] == "yes"
    seen = Counter(torch._dynamo.utils.counters["stats"])
    assert assert_equal_to_the_model(directory, Player(runner, np.random.default_rng(8)).play(40)) > 100
    assert torch._dynamo.utils.counters["stats"] == seen, "something was compiled in the middle of serving"


def test_what_was_compiled_for_one_runner_serves_the_next(tmp_path: Path) -> None:
    # What torch has compiled it never gives back: compiled anew, each load would take seconds and megabytes.
    config = small_config(num_hidden_layers=2, layer_pattern="SF", num_experts=0, num_experts_per_tok=0)
    first, second = (save_random_model(config, seed, tmp_path / str(seed)) for seed in (1, 2))
    make(first, EngineLimits(2, CONTEXT, 40), compiles=True).close()
    seen = Counter(torch._dynamo.utils.counters["stats"])
    runner = make(second, EngineLimits(4, CONTEXT, 60), compiles=True)
    assert torch._dynamo.utils.counters["stats"] == seen
    got = runner.step([SequenceStep(0, 0, [1, 2, 3], wanted=3)])
    np.testing.assert_allclose(got, reference_logits(load_model(second, torch.float64), [1, 2, 3]), atol=1e-4, rtol=0)


def test_a_process_that_compiled_too_many_kinds_of_layers_serves_the_next_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(num_hidden_layers=2, layer_pattern="SF", num_experts=0, num_experts_per_tok=0)
    directory = save_random_model(config, 9, tmp_path)
    monkeypatch.setattr(step_parts, "_KINDS", 1)
    step_parts.compiled.cache_clear()
    runner = make(directory, EngineLimits(2, CONTEXT, 40), compiles=True)
    step_parts.compiled.cache_clear()
    assert runner.choices["compile"] == "no: torch has compiled as many kinds of layers as it may in one process"
    got = runner.step([SequenceStep(0, 0, [1, 2, 3], wanted=3)])
    expected_TV = reference_logits(load_model(directory, torch.float64), [1, 2, 3])
    np.testing.assert_allclose(got, expected_TV, atol=1e-4, rtol=0)


def test_experts_are_compiled_in_bfloat16_only(tmp_path: Path) -> None:
    directory = save_random_model(small_config(num_hidden_layers=1), 8, tmp_path)
    plain = make(directory, EngineLimits(2, CONTEXT, 40), compiles=True)
    assert plain.choices["compile"] == "no: grouped matrix products compile in bfloat16 only"
    assert make(directory, EngineLimits(2, CONTEXT, 40), "bfloat16", compiles=True).choices["compile"] == "yes"
