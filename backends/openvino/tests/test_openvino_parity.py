"""The served artefact computes what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_openvino.exporter import OpenVinoExporter
from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.reference import Reference
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import VOCABULARY

from .conftest import CONTEXT, LIGHTNING, export_drawn
from .driving import assert_equal_to_the_model, drive, player_of, rounding


def test_mixed_steps_equal_the_whole_forward_pass(exported: Exported) -> None:
    for shape in ((1, 16, CONTEXT), (4, 9, 40), (7, 200, 70)):
        limits = EngineLimits(max_sequences=shape[0], max_step_tokens=shape[1], max_context=shape[2], threads=1)
        played = drive(OpenVinoRunner(exported.artefact, limits), steps=20)
        assert_equal_to_the_model(exported.model, played, exported.label)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(25))
def test_many_plans_equal_their_models(tmp_path: Path, number: int) -> None:
    test_mixed_steps_equal_the_whole_forward_pass(export_drawn(tmp_path))


def test_a_prompt_longer_than_a_rings_chunk_is_divided(exported: Exported) -> None:
    limits = EngineLimits(max_sequences=2, max_context=CONTEXT, max_step_tokens=2 * CONTEXT, threads=1)
    runner = OpenVinoRunner(exported.artefact, limits)
    runner._kv.chunk = 32  # the ring has room for more
    player = player_of(runner)
    long, short = player.begin(), player.begin()
    player.together((long, 150), (short, 40))
    runner.close()
    assert_equal_to_the_model(exported.model, [long, short], exported.label)


def test_copies_of_a_sequence_go_on_as_it_would_have(exported: Exported) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(max_sequences=3, max_context=CONTEXT, threads=1, cached_sequences=1)
    runner = OpenVinoRunner(exported.artefact, limits)
    for length in (3, 20, 45):
        player = player_of(runner, several=False)
        source, other = player.begin(), player.begin()
        player.together((source, length), (other, length))
        sequences = [source, other, player.fork(source, length)]
        for _ in range(12):
            order = random.permutation(3).tolist()
            player.together(*((sequences[index], int(random.integers(1, 3))) for index in order))
        assert_equal_to_the_model(exported.model, sequences, exported.label)
        for sequence in sequences:
            player.end(sequence)
    runner.close()


def test_as_many_tokens_as_the_layout_says_can_be_taken_back(exported: Exported) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(max_sequences=1, max_context=CONTEXT, max_step_tokens=48, draft_tokens=5, threads=1)
    runner = OpenVinoRunner(exported.artefact, limits)
    assert runner.layout.rewind >= 5
    player = player_of(runner, several=False)
    sequence = player.begin()
    player.grow(sequence, 48)
    for _ in range(12):
        # what was taken back has taken its room
        kept = int(random.integers(max(0, sequence.longest - runner.layout.rewind), len(sequence.tokens) + 1))
        player.take_back(sequence, len(sequence.tokens) - kept)
        if count := min(CONTEXT - kept, int(random.integers(1, 49))):
            player.grow(sequence, count)
            assert_equal_to_the_model(exported.model, [sequence], exported.label)
    runner.close()


def test_hidden_states_are_those_before_the_head(exported: Exported) -> None:
    runner = OpenVinoRunner(exported.artefact, EngineLimits(max_sequences=2, max_context=CONTEXT, threads=1))
    tokens = np.random.default_rng().integers(0, VOCABULARY, 20).tolist()
    batch = [SequenceStep(1, 0, tokens, wanted=3)]
    hidden_RD, logits_RV = runner.hidden(batch), runner.step(batch)
    runner.close()
    model = load_model(exported.model)
    with torch.inference_mode():
        again_RV = model.logits(torch.from_numpy(hidden_RD)).numpy()
    np.testing.assert_allclose(again_RV, logits_RV, atol=1e-4)


def test_the_exporters_own_check_agrees(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    references = [Reference.load(exported.artefact)]

    def ask(network: Transformer, directory: Path) -> Reference:
        references.append(ask_checkpoint(network, directory))
        return references[-1]

    monkeypatch.setattr("fulmen_backend_openvino.exporter.ask_checkpoint", ask)
    for model, reference in ((None, 0), (exported.model, 1)):
        found = OpenVinoExporter().check(exported.artefact, model)
        # some random plans multiply rounding so that PyTorch's float32, which is the reference, is 1e-4 off itself
        error = rounding(exported.model, references[reference])
        assert found["max_abs_diff"] <= np.clip(1e-4, 3 * error, 8 * error), exported.label
        assert found["greedy_equal"], exported.label
        assert found["logits_compared"] >= 20


def test_the_check_sees_an_artefact_of_other_weights(lightning: Exported, tmp_path: Path) -> None:
    model = load_model(lightning.model)
    with torch.no_grad():
        model.block(1).attention.q_proj.weight[5] *= 1.05
    save_model(model, tmp_path)
    found = OpenVinoExporter().check(lightning.artefact, tmp_path)
    assert found["max_abs_diff"] > 1e-4


def test_greedy_answers_do_not_depend_on_the_batch(exported: Exported) -> None:
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 30)).tolist() for _ in range(9)]
    params = SamplingParams(temperature=0, max_tokens=16)
    answers = [
        generate(OpenVinoRunner(exported.artefact, EngineLimits(slots, CONTEXT, tokens, threads=1)), prompts, params)
        for slots, tokens in ((1, 64), (9, 128))
    ]
    assert answers[0] == answers[1], exported.label


def test_memory_is_the_cache_spec_in_whole_blocks_and_a_chunk_of_each_window(exported: Exported) -> None:
    limits = EngineLimits(max_sequences=3, max_context=100, max_step_tokens=64, threads=1)
    runner = OpenVinoRunner(exported.artefact, limits)
    spec = CacheSpec.of(exported.config)
    tokens = 0
    for group in spec.groups:
        most = 128 if group.window is None else min(group.window, 100) + 64 + 2 * 32
        tokens += most * len(group.caches)
    assert spec.bytes_per_sequence(100, 4) * 3 <= runner.kv_bytes() <= 3 * tokens * spec.elements_per_token * 4
    # what an answer of 10,000 tokens more would need is in pages alone
    longer = OpenVinoRunner(exported.artefact, replace(limits, kv_tokens=4096))
    windows = [group for group in spec.groups if group.window is not None]
    full = len(spec.groups) - len(windows)
    assert longer.layout.pages == 128
    assert (longer.kv_bytes() > runner.kv_bytes()) == bool(full)


def test_the_context_is_cut_to_the_positions_of_the_model(lightning: Exported) -> None:
    assert OpenVinoRunner(lightning.artefact, EngineLimits(max_context=10_000)).limits.max_context == CONTEXT


def test_toy_plan_covers_windows_sharing_and_experts() -> None:
    plan = CacheSpec.of(LIGHTNING)
    assert {group.window for group in plan.groups} == {None, 8}
    assert sum(len(group.caches) for group in plan.groups) == 7  # layer 7 borrows from layer 3
