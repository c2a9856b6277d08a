"""The artefact computes what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import VOCABULARY, fresh_seed

from .conftest import CONTEXT, FAMILIES, LIGHTNING, export, export_drawn, family
from .mixed_steps import assert_equal_to_the_model, drive, player_of


def test_mixed_steps_equal_the_whole_forward_pass(exported: Exported) -> None:
    for shape in ((1, 16, CONTEXT), (4, 9, 40), (7, 200, 70)):
        limits = EngineLimits(max_sequences=shape[0], max_step_tokens=shape[1], max_context=shape[2], threads=1)
        played = drive(OnnxRunner(exported.artefact, limits), steps=25)
        assert_equal_to_the_model(exported.model, played, exported.label)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_open_family_is_the_same_model(name: str, tmp_path: Path) -> None:
    made = export(family(name), fresh_seed(), tmp_path)
    limits = EngineLimits(max_sequences=5, max_step_tokens=60, max_context=90, threads=1)
    played = drive(OnnxRunner(made.artefact, limits), steps=20)
    assert assert_equal_to_the_model(made.model, played, made.label) > 20, made.label


@pytest.mark.slow
@pytest.mark.parametrize("number", range(40))
def test_plans_that_nobody_thought_of_are_the_same_model(number: int, tmp_path: Path) -> None:
    made = export_drawn(tmp_path)
    limits = EngineLimits(max_sequences=4, max_step_tokens=50, max_context=80, threads=1, draft_tokens=number % 3)
    played = drive(OnnxRunner(made.artefact, limits), steps=25)
    assert_equal_to_the_model(made.model, played, made.label)


def test_copies_of_a_sequence_go_on_as_it_would_have(exported: Exported) -> None:
    random = np.random.default_rng()
    windows = [group.window for group in CacheSpec.of(exported.config).groups if group.window is not None]
    for length in (3, 20, 45):
        limits = EngineLimits(max_sequences=2, max_context=CONTEXT, threads=1, cached_sequences=1)
        runner = OnnxRunner(exported.artefact, limits)
        player = player_of(runner, several=False)
        source, other = player.begin(), player.begin()
        player.together((source, length), (other, length))
        kept = int(random.integers(1, length + 1)) if length <= min(windows, default=CONTEXT) else length
        sequences = [source, other, player.fork(source, kept)]
        for _ in range(12):
            order = random.permutation(3).tolist()
            player.together(*((sequences[index], int(random.integers(1, 3))) for index in order))
        runner.close()
        assert_equal_to_the_model(exported.model, sequences, exported.label)


def test_the_exporters_own_check_agrees(exported: Exported) -> None:
    found = OnnxExporter().check(exported.artefact, exported.model)
    assert found["max_abs_diff"] <= 1e-4, exported.label
    assert found["greedy_equal"], exported.label
    assert found["logits_compared"] >= 20
    assert found["greedy_tokens"] >= 64


def test_the_check_sees_an_artefact_of_other_weights(lightning: Exported, tmp_path: Path) -> None:
    model = load_model(lightning.model)
    with torch.no_grad():
        model.block(1).attention.q_proj.weight[5] *= 1.05
    save_model(model, tmp_path)
    found = OnnxExporter().check(lightning.artefact, tmp_path)
    assert found["max_abs_diff"] > 1e-4


def test_greedy_answers_do_not_depend_on_the_batch(exported: Exported) -> None:
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 30)).tolist() for _ in range(9)]
    params = SamplingParams(temperature=0, max_tokens=16)
    answers = [
        generate(OnnxRunner(exported.artefact, EngineLimits(slots, CONTEXT, tokens, threads=1)), prompts, params)
        for slots, tokens in ((1, 64), (4, 9), (9, 128))
    ]
    assert answers[0] == answers[1] == answers[2], exported.label


def test_memory_is_the_cache_spec_and_an_eighth_of_each_window(exported: Exported) -> None:
    runner = OnnxRunner(exported.artefact, EngineLimits(max_sequences=3, max_context=100))
    spec = CacheSpec.of(exported.config)
    slack = sum(len(group.caches) * (group.window // 8) for group in spec.groups if group.window is not None)
    expected = spec.bytes_per_sequence(100, 4) + slack * spec.elements_per_token * 4
    assert runner.kv_bytes() == 3 * expected


def test_the_context_is_cut_to_the_positions_of_the_model(lightning: Exported) -> None:
    assert OnnxRunner(lightning.artefact, EngineLimits(max_context=10_000)).limits.max_context == CONTEXT


def test_a_window_longer_than_the_context_still_has_its_room(exported: Exported) -> None:
    limits = EngineLimits(max_sequences=2, max_context=6, max_step_tokens=6, threads=1)
    played = drive(OnnxRunner(exported.artefact, limits), steps=10)
    assert_equal_to_the_model(exported.model, played, exported.label)


def test_toy_plan_covers_windows_sharing_and_experts() -> None:
    plan = CacheSpec.of(LIGHTNING)
    assert {group.window for group in plan.groups} == {None, 8}
    assert sum(len(group.caches) for group in plan.groups) == 7  # layer 7 borrows from layer 3
