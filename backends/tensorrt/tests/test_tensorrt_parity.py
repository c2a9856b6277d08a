"""The graphs compute what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from fulmen_backend_tensorrt.artefact import PHASES, graph_file
from fulmen_backend_tensorrt.quantisation import quantise
from fulmen_backend_tensorrt.runner import EngineRunner
from fulmen_backend_tensorrt.twin_executor import TwinExecutor
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.verdict import fault
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams

from .conftest import CONTEXT, LIGHTNING, VOCABULARY, Written, random_config, save, write

ROUTING_TIE = 1e-5


@dataclass
class Played:
    """A sequence that was run: its tokens, and the logits it got after some of them."""

    tokens: list[int] = field(default_factory=list)
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


@pytest.fixture(scope="module", params=["lightning", "random", "random"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Models in turn, their graphs in float32."""
    root = tmp_path_factory.mktemp("written")
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    config = LIGHTNING if request.param == "lightning" else random_config(np.random.default_rng(seed))
    save(config, seed, root / "model")
    write(root / "model", root / "artefact")
    return Written(f"seed {seed}, {config!r}", config, root / "model", root / "artefact")


def open_runner(
    artefact: Path, sequences: int, step_tokens: int, context: int = CONTEXT, kept: int = 0
) -> EngineRunner:
    limits = EngineLimits(sequences, context, step_tokens, threads=1, cached_sequences=kept)
    runner = EngineRunner(artefact, limits, TwinExecutor)
    executor = runner._executor
    assert isinstance(executor, TwinExecutor)
    for array in executor._caches.values():
        array[:] = 1e4  # what an earlier user left: finite, as all that was ever written is
    return runner


def drive(runner: EngineRunner, random: np.random.Generator, steps: int) -> list[Played]:
    """Run random mixed steps, chunks and single tokens, with slot reuse."""
    limits = runner.limits
    played: list[Played] = []
    current: dict[int, Played] = {}
    for _ in range(steps):
        budget = limits.max_step_tokens
        batch = []
        for slot in random.permutation(limits.max_sequences).tolist():
            if slot in current and (len(current[slot].tokens) == limits.max_context or random.random() < 0.1):
                runner.release(slot)
                del current[slot]
            if slot not in current:
                current[slot] = Played()
                played.append(current[slot])
            tokens = current[slot].tokens
            room = min(budget, limits.max_context - len(tokens))
            if room == 0 or random.random() < 0.25:
                continue
            count = 1 if tokens and random.random() < 0.5 else int(random.integers(1, room + 1))
            batch.append(_next(slot, current[slot], count, random))
            budget -= count
        _run(runner, batch, current)
    return [sequence for sequence in played if sequence.tokens]


def _next(slot: int, sequence: Played, count: int, random: np.random.Generator) -> SequenceStep:
    new = random.integers(0, VOCABULARY, count).tolist()
    step = SequenceStep(slot, len(sequence.tokens), new)
    sequence.tokens.extend(new)
    return step


def _run(runner: EngineRunner, batch: list[SequenceStep], current: dict[int, Played]) -> None:
    if not batch:
        return
    for step, logits_V in zip(batch, runner.step(batch), strict=True):
        assert logits_V.dtype == np.float32
        current[step.slot].logits[step.start + len(step.token_ids) - 1] = logits_V


@torch.inference_mode()
def assert_equal_to_the_model(directory: Path, played: list[Played], label: str) -> None:
    """Compare with float64, up to the first token whose routing is a coin toss."""
    model = load_model(directory, torch.float64)
    model.set_experts_implementation("dense")
    for sequence in played:
        output = model(torch.tensor([sequence.tokens]))
        expected_TV = model.logits(output.hidden_BTD)[0].numpy()
        settled = min([len(sequence.tokens), *_tossed(model, output.router)])
        for position, logits_V in sequence.logits.items():
            if position < settled:
                tolerance = 1e-4 * max(1.0, float(np.abs(expected_TV[position]).max()) / 10)
                np.testing.assert_allclose(logits_V, expected_TV[position], atol=tolerance, rtol=0, err_msg=label)


def _tossed(model: torch.nn.Module, router: object) -> Iterator[int]:
    config = model.config
    top_k = config.num_experts_per_tok  # type: ignore[union-attr]
    if router is None or top_k == config.num_experts:  # type: ignore[union-attr]
        return
    biases = [buffer for name, buffer in model.named_buffers() if name.endswith("router.bias")]
    for index, logits_NE in enumerate(router.logits):  # type: ignore[attr-defined]
        scores_NE = logits_NE.softmax(-1) if config.router_score == "softmax" else logits_NE.sigmoid()  # type: ignore[union-attr]
        best_NK = (scores_NE + biases[index] if biases else scores_NE).topk(top_k + 1).values
        yield from (best_NK[:, -2] - best_NK[:, -1] < ROUTING_TIE).nonzero().flatten().tolist()


@pytest.mark.parametrize(("sequences", "tokens", "context"), [(1, 16, CONTEXT), (4, 9, 40), (7, 200, 70)])
def test_mixed_steps_equal_the_whole_forward_pass(model: Written, sequences: int, tokens: int, context: int) -> None:
    runner = open_runner(model.artefact, sequences, tokens, context)
    played = drive(runner, np.random.default_rng(), steps=25)
    runner.close()
    assert_equal_to_the_model(model.model, played, model.label)


def test_a_sequence_that_fills_the_context_goes_round_the_rings_beside_idle_rows(model: Written) -> None:
    runner = open_runner(model.artefact, 3, CONTEXT)
    random = np.random.default_rng()
    current = {slot: Played() for slot in range(3)}
    _run(runner, [_next(slot, current[slot], 9, random) for slot in range(3)], current)
    for _ in range(CONTEXT - 9):  # row 1 lies between the others and idles while they decode
        _run(runner, [_next(slot, current[slot], 1, random) for slot in (0, 2)], current)
    _run(runner, [_next(1, current[1], CONTEXT - 9, random)], current)
    runner.close()
    assert_equal_to_the_model(model.model, list(current.values()), model.label)


def test_copies_of_a_sequence_go_on_as_it_would_have(model: Written) -> None:
    random = np.random.default_rng()
    windows = [group.window for group in CacheSpec.of(model.config).groups if group.window is not None]
    for length in (3, 20, 45):
        runner = open_runner(model.artefact, 2, 60, kept=1)
        current = {slot: Played() for slot in (0, 1)}
        _run(runner, [_next(slot, current[slot], length, random) for slot in (0, 1)], current)
        kept = int(random.integers(1, length + 1)) if length <= min(windows, default=CONTEXT) else length
        runner.copy_slot(0, 2, kept)
        current[2] = Played(current[0].tokens[:kept])
        for _ in range(12):
            batch = [_next(slot, current[slot], int(random.integers(1, 3)), random) for slot in (2, 0, 1)]
            _run(runner, batch, current)
        runner.close()
        assert_equal_to_the_model(model.model, list(current.values()), model.label)


def test_greedy_answers_do_not_depend_on_the_batch(model: Written) -> None:
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 30)).tolist() for _ in range(7)]
    params = SamplingParams(temperature=0, max_tokens=12)
    answers = [
        generate(open_runner(model.artefact, sequences, tokens), prompts, params)
        for sequences, tokens in ((1, 64), (4, 9), (7, 128))
    ]
    assert answers[0] == answers[1] == answers[2], model.label


def test_a_window_cache_keeps_the_window_and_a_chunk_whatever_the_context(tmp_path: Path) -> None:
    save(LIGHTNING, 0, tmp_path / "model")
    write(tmp_path / "model", tmp_path / "artefact", chunk=16)
    each = 2 * LIGHTNING.num_key_value_heads * LIGHTNING.head_dim * 4
    for slots in (1, 3):
        runner = open_runner(tmp_path / "artefact", slots, 16)
        assert runner.kv_bytes() == slots * each * (6 * (8 + 16) + 1 * (CONTEXT + 1))  # layer 7 borrows from layer 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_graph_of_half_precision_is_that_of_float32_but_for_casts(tmp_path: Path, dtype: Dtype) -> None:
    save(LIGHTNING, 0, tmp_path / "model")
    write(tmp_path / "model", tmp_path / "half", dtype)
    write(tmp_path / "model", tmp_path / "single")
    for phase in PHASES:
        half, single = (
            [
                (node.op_type, node.output[0].partition("_")[0], len(node.input))
                for node in onnx.load(tmp_path / name / graph_file(phase)).graph.node
                if node.op_type != "Cast"
            ]
            for name in ("half", "single")
        )
        assert half == single


@pytest.mark.parametrize(("dtype", "quantize"), [("float16", None), ("bfloat16", None), ("float16", "int8")])
def test_rounded_weights_change_little(tmp_path: Path, dtype: Dtype, quantize: Quantization | None) -> None:
    save(LIGHTNING, 1, tmp_path / "model")
    manifest = write(tmp_path / "model", tmp_path / "artefact", dtype, quantize)
    reference = ask_checkpoint(load_model(tmp_path / "model"), tmp_path / "model")
    limits = limits_for(reference)
    found = compare(EngineRunner(tmp_path / "artefact", limits, TwinExecutor), reference)
    assert fault(found, manifest.model_dump()) == ""
    assert found["max_abs_diff"] > 0


@pytest.mark.parametrize("plan", ["lightning", "random"])
def test_experts_in_8_bits_are_the_checkpoints_rounded_and_nothing_else_is(tmp_path: Path, plan: str) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    config = LIGHTNING if plan == "lightning" else random_config(np.random.default_rng(seed))
    if config.num_experts == 0:
        config = LIGHTNING
    save(config, seed, tmp_path / "model")
    write(tmp_path / "model", tmp_path / "artefact", quantize="int8")
    rounded = load_model(tmp_path / "model")
    for name, tensor in rounded.state_dict().items():
        if name.endswith(("gate_up_EGD", "down_EFD")):
            values, scale = quantise(tensor, 1 if name.endswith("down_EFD") else 2, "float32")
            assert float((values * scale - tensor).abs().max()) > 0
            tensor.copy_(values * scale)
    (tmp_path / "rounded").mkdir()
    save_model(rounded, tmp_path / "rounded")
    runner = open_runner(tmp_path / "artefact", 4, 40, 70)
    played = drive(runner, np.random.default_rng(), steps=15)
    runner.close()
    assert_equal_to_the_model(tmp_path / "rounded", played, f"seed {seed}, {config!r}")


def test_only_standard_operators_are_used(model: Written) -> None:
    for phase in PHASES:
        graph = onnx.load(model.artefact / graph_file(phase))
        onnx.checker.check_model(graph, full_check=True)
        assert {node.domain for node in graph.graph.node} == {""}
