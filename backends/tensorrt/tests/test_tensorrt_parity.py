"""The graphs compute what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fulmen_backend_tensorrt.artefact import PHASES, graph_file
from fulmen_backend_tensorrt.calibration import input_ranges
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.graphs import write_graphs
from fulmen_backend_tensorrt.quantisation import form_of, quantise, restore
from fulmen_backend_tensorrt.runner import EngineRunner
from fulmen_backend_tensorrt.twin_executor import TwinExecutor
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.verdict import fault
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_testing.agreement import assert_equal, in_float64
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import VOCABULARY, save_random_model
from fulmen_testing.player import Player, Sequence

from .conftest import CONTEXT, LIGHTNING, draw_plan, write

ROUTING_TIE = 1e-5
MATRICES = ("_proj.weight", "gate_up.weight", "down.weight", "head.weight")


@pytest.fixture(scope="module", params=["lightning", "random", "random"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Models in turn, their graphs in float32."""
    root = tmp_path_factory.mktemp("written")
    config, seed = draw_plan()
    if request.param == "lightning":
        config = LIGHTNING
    save_random_model(config, seed, root / "model")
    write(root / "model", root / "artefact")
    return Exported(f"seed {seed}, {config!r}", config, root / "model", root / "artefact")


def open_runner(
    artefact: Path, sequences: int, step_tokens: int, context: int = CONTEXT, kept: int = 0
) -> EngineRunner:
    limits = EngineLimits(sequences, context, step_tokens, threads=1, cached_sequences=kept)
    return EngineRunner(artefact, limits, TwinExecutor)


def player_of(runner: EngineRunner) -> Player:
    """A player of fresh randomness, under whose sequences lies what an earlier user left."""
    executor = runner._executor
    assert isinstance(executor, TwinExecutor)

    def poison(slot: int, pages: list[int]) -> None:
        assert not pages
        for array in executor._caches.values():
            array[slot] = 1e4  # finite, as all that was ever written is

    return Player(runner, np.random.default_rng(), poison=poison)


def drive(runner: EngineRunner, steps: int) -> list[Sequence]:
    """Run random mixed steps and close the runner."""
    played = player_of(runner).mix(steps)
    runner.close()
    return played


def assert_equal_to_the_model(directory: Path, played: list[Sequence], label: str) -> int:
    """Compare with a model directory in float64. Return how many results were held against it."""
    return assert_equal(in_float64(directory), played, label, tie=ROUTING_TIE, growing=True)


@pytest.mark.parametrize(("sequences", "tokens", "context"), [(1, 16, CONTEXT), (4, 9, 40), (7, 200, 70)])
def test_mixed_steps_equal_the_whole_forward_pass(model: Exported, sequences: int, tokens: int, context: int) -> None:
    played = drive(open_runner(model.artefact, sequences, tokens, context), steps=25)
    assert_equal_to_the_model(model.model, played, model.label)


def test_a_sequence_that_fills_the_context_goes_round_the_rings_beside_idle_rows(model: Exported) -> None:
    runner = open_runner(model.artefact, 3, CONTEXT)
    player = player_of(runner)
    sequences = sorted((player.begin() for _ in range(3)), key=lambda sequence: sequence.slot)
    first, between, last = sequences
    player.together(*((sequence, 9) for sequence in sequences))
    for _ in range(CONTEXT - 9):  # the row between the others idles while they decode
        player.together((first, 1), (last, 1))
    player.grow(between, CONTEXT - 9)
    runner.close()
    assert_equal_to_the_model(model.model, sequences, model.label)


def test_copies_of_a_sequence_go_on_as_it_would_have(model: Exported) -> None:
    random = np.random.default_rng()
    windows = [group.window for group in CacheSpec.of(model.config).groups if group.window is not None]
    for length in (3, 20, 45):
        runner = open_runner(model.artefact, 2, 60, kept=1)
        player = player_of(runner)
        source, other = player.begin(), player.begin()
        player.together((source, length), (other, length))
        kept = int(random.integers(1, length + 1)) if length <= min(windows, default=CONTEXT) else length
        copy = player.fork(source, kept)
        for _ in range(12):
            player.together(*((sequence, int(random.integers(1, 3))) for sequence in (copy, source, other)))
        runner.close()
        assert_equal_to_the_model(model.model, [source, other, copy], model.label)


def test_greedy_answers_do_not_depend_on_the_batch(model: Exported) -> None:
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 30)).tolist() for _ in range(7)]
    params = SamplingParams(temperature=0, max_tokens=12)
    answers = [
        generate(open_runner(model.artefact, sequences, tokens), prompts, params)
        for sequences, tokens in ((1, 64), (4, 9), (7, 128))
    ]
    assert answers[0] == answers[1] == answers[2], model.label


def test_a_window_cache_keeps_the_window_and_a_chunk_whatever_the_context(tmp_path: Path) -> None:
    save_random_model(LIGHTNING, 0, tmp_path / "model")
    write(tmp_path / "model", tmp_path / "artefact", chunk=16)
    each = 2 * LIGHTNING.num_key_value_heads * LIGHTNING.head_dim * 4
    for slots in (1, 3):
        runner = open_runner(tmp_path / "artefact", slots, 16)
        assert runner.kv_bytes() == slots * each * (6 * (8 + 16) + 1 * (CONTEXT + 1))  # layer 7 borrows from layer 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_graph_of_half_precision_is_that_of_float32_but_for_casts(tmp_path: Path, dtype: Dtype) -> None:
    save_random_model(LIGHTNING, 0, tmp_path / "model")
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


@pytest.mark.parametrize(
    ("dtype", "quantize"),
    [
        ("float16", None),
        ("bfloat16", None),
        ("float16", "int8"),
        ("float16", "int4"),
        ("float16", "fp8"),
        ("bfloat16", "fp8"),
    ],
)
def test_rounded_weights_change_little(tmp_path: Path, dtype: Dtype, quantize: Quantization | None) -> None:
    save_random_model(LIGHTNING, 1, tmp_path / "model")
    manifest = write(tmp_path / "model", tmp_path / "artefact", dtype, quantize)
    reference = ask_checkpoint(load_model(tmp_path / "model"), tmp_path / "model")
    limits = limits_for(reference)
    found = compare(EngineRunner(tmp_path / "artefact", limits, TwinExecutor), reference)
    assert fault(found, manifest.model_dump()) == ""
    assert found["max_abs_diff"] > 0


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("plan", ["lightning", "random"])
def test_rounded_matrices_are_the_checkpoints_rounded_and_nothing_else_is(
    tmp_path: Path, plan: str, quantize: Quantization
) -> None:
    config, seed = draw_plan()
    if plan == "lightning" or config.num_experts == 0:
        config = LIGHTNING
    save_random_model(config, seed, tmp_path / "model")
    write(tmp_path / "model", tmp_path / "artefact", quantize=quantize)
    weights = load_model(tmp_path / "model").state_dict()
    weights.setdefault("head.weight", weights["embed.weight"].clone())  # its rows as tokens' are not rounded
    forms = set()
    for name, tensor in weights.items():
        experts = name.endswith(("gate_up_EGD", "down_EFD"))
        if experts or (name.endswith(MATRICES) and "norm" not in name):
            inputs = 1 if name.endswith("down_EFD") else tensor.ndim - 1
            form = form_of(name, tensor.shape[inputs], quantize, experts=experts)
            assert form is not None
            rounded = restore(quantise(tensor, inputs, "float32", form))
            assert float((rounded - tensor).abs().max()) > 0
            tensor.copy_(rounded)
            forms.add(form)
    assert quantize in forms
    rounded_model = Transformer(config.model_copy(update={"tie_word_embeddings": False}))
    rounded_model.load_state_dict(weights)
    (tmp_path / "rounded").mkdir()
    save_model(rounded_model, tmp_path / "rounded")
    played = drive(open_runner(tmp_path / "artefact", 4, 40, 70), steps=15)
    assert_equal_to_the_model(tmp_path / "rounded", played, f"seed {seed}, {config!r}")


def test_every_product_in_fp8_has_the_scale_of_what_the_checkpoint_multiplied(tmp_path: Path) -> None:
    config = LIGHTNING.model_copy(update={"num_dense_layers": 1, "attention_gate": True, "tie_word_embeddings": False})
    save_random_model(config, 3, tmp_path / "model")
    network = load_model(tmp_path / "model")
    tokens_BT = torch.randint(VOCABULARY, (3, 50))
    with input_ranges(network) as ranges, torch.inference_mode():
        first_BTD = network.blocks[0].attention_norm(network.embedded(tokens_BT))
        network(tokens_BT)
    prefix = "blocks.0.attention."
    assert {ranges[f"{prefix}{name}_proj.weight"] for name in ("q", "kv", "gate")} == {float(first_BTD.abs().max())}
    capacities = Capacities.of(config, CONTEXT, 16)
    (tmp_path / "graphs").mkdir()
    write_graphs(network, tmp_path / "graphs", capacities, "float32", "fp8", ranges)
    matrices = [name for name in network.state_dict() if name.endswith(MATRICES[:-1]) and "norm" not in name]
    for phase in PHASES:
        graph = onnx.load(tmp_path / "graphs" / graph_file(phase)).graph
        constants = {one.name: one for one in graph.initializer}
        scales = [constants[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
        found = sorted(float(onnx.numpy_helper.to_array(scale)) for scale in scales)
        np.testing.assert_allclose(found, sorted(ranges[name] / 448 for name in matrices), rtol=1e-6)


def test_only_standard_operators_are_used(model: Exported) -> None:
    for phase in PHASES:
        graph = onnx.load(model.artefact / graph_file(phase))
        onnx.checker.check_model(graph, full_check=True)
        assert {node.domain for node in graph.graph.node} == {""}
