"""The artefact computes what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.exporter import OnnxExporter
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams

from .conftest import CONTEXT, LIGHTNING, VOCABULARY, Exported

ROUTING_TIE = 1e-5


@dataclass
class Played:
    """A sequence that was run: its tokens, and the logits it got after some of them."""

    tokens: list[int] = field(default_factory=list)
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


def poison(runner: OnnxRunner, slot: int) -> None:
    row = runner._rows.slots.index(slot)
    for pair in runner._kv.arrays:
        for array in pair:
            array[row] = np.nan


def drive(runner: OnnxRunner, random: np.random.Generator, steps: int) -> list[Played]:
    """Run random mixed steps with slot reuse, poisoning what is released."""
    limits = runner.limits
    played: list[Played] = []
    current: dict[int, Played] = {}
    for slot in range(limits.max_sequences):
        poison(runner, slot)
    for _ in range(steps):
        budget = limits.max_step_tokens
        batch = []
        for slot in random.permutation(limits.max_sequences).tolist():
            if slot in current and (len(current[slot].tokens) == limits.max_context or random.random() < 0.1):
                runner.release(slot)
                poison(runner, slot)
                del current[slot]
            if slot not in current:
                current[slot] = Played()
                played.append(current[slot])
            tokens = current[slot].tokens
            room = min(budget, limits.max_context - len(tokens))
            if room == 0 or random.random() < 0.25:
                continue
            count = 1 if tokens and random.random() < 0.5 else int(random.integers(1, room + 1))
            new = random.integers(0, VOCABULARY, count).tolist()
            batch.append(SequenceStep(slot, len(tokens), new))
            tokens.extend(new)
            budget -= count
        if not batch:
            continue
        for step, logits_V in zip(batch, runner.step(batch), strict=True):
            assert logits_V.dtype == np.float32
            current[step.slot].logits[step.start + len(step.token_ids) - 1] = logits_V
    return [sequence for sequence in played if sequence.tokens]


@torch.inference_mode()
def assert_equal_to_the_model(directory: Path, played: list[Played], label: str) -> None:
    """Compare with float64, up to the first token whose routing is a coin toss."""
    model = load_model(directory, torch.float64)
    model.set_experts_implementation("dense")  # grouped products know no float64
    top_k = model.config.num_experts_per_tok
    for sequence in played:
        output = model(torch.tensor([sequence.tokens]))
        expected_TV = model.logits(output.hidden_BTD)[0].numpy()
        settled = len(sequence.tokens)
        for logits_NE in output.router.logits if output.router is not None else ():
            best_NK = logits_NE.softmax(-1).topk(top_k + 1).values
            tossed = (best_NK[:, -2] - best_NK[:, -1] < ROUTING_TIE).nonzero()
            settled = min([settled, *tossed.flatten().tolist()])
        for position, logits_V in sequence.logits.items():
            if position < settled:
                np.testing.assert_allclose(logits_V, expected_TV[position], atol=1e-4, rtol=0, err_msg=label)


def test_mixed_steps_equal_the_whole_forward_pass(exported: Exported) -> None:
    for shape in ((1, 16, CONTEXT), (4, 9, 40), (7, 200, 70)):
        limits = EngineLimits(max_sequences=shape[0], max_step_tokens=shape[1], max_context=shape[2], threads=1)
        runner = OnnxRunner(exported.artefact, limits)
        played = drive(runner, np.random.default_rng(), steps=25)
        runner.close()
        assert_equal_to_the_model(exported.model, played, exported.label)


def test_copies_of_a_sequence_go_on_as_it_would_have(exported: Exported) -> None:
    random = np.random.default_rng()
    windows = [group.window for group in CacheSpec.of(exported.config).groups if group.window is not None]
    for length in (3, 20, 45):
        limits = EngineLimits(max_sequences=2, max_context=CONTEXT, threads=1, cached_sequences=1)
        runner = OnnxRunner(exported.artefact, limits)
        poison(runner, 2)
        sequences = {slot: Played(random.integers(0, VOCABULARY, length).tolist()) for slot in (0, 1)}
        runner.step([SequenceStep(slot, 0, sequence.tokens) for slot, sequence in sequences.items()])
        kept = int(random.integers(1, length + 1)) if length <= min(windows, default=CONTEXT) else length
        runner.copy_slot(0, 2, kept)
        sequences[2] = Played(sequences[0].tokens[:kept])
        for _ in range(12):
            batch = []
            for slot in random.permutation(3).tolist():
                tokens = sequences[slot].tokens
                new = random.integers(0, VOCABULARY, int(random.integers(1, 3))).tolist()
                batch.append(SequenceStep(slot, len(tokens), new))
                tokens.extend(new)
            for step, logits_V in zip(batch, runner.step(batch), strict=True):
                sequences[step.slot].logits[step.start + len(step.token_ids) - 1] = logits_V
        runner.close()
        assert_equal_to_the_model(exported.model, list(sequences.values()), exported.label)


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
    played = drive(OnnxRunner(exported.artefact, limits), np.random.default_rng(), steps=10)
    assert_equal_to_the_model(exported.model, played, exported.label)


def test_toy_plan_covers_windows_sharing_and_experts() -> None:
    plan = CacheSpec.of(LIGHTNING)
    assert {group.window for group in plan.groups} == {None, 8}
    assert sum(len(group.caches) for group in plan.groups) == 7  # layer 7 borrows from layer 3
