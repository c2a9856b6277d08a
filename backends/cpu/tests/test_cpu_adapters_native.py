"""What the native runner promises of adapters: no influence on neighbours, in any precision, and memory given back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_backend_cpu.native_library import load_library
from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.native_build import NativeUnavailable
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.adapters import merged, write_adapter

VOCABULARY = 67
RANKS = (16, 5, 40)
PRECISIONS: list[dict] = [
    {},
    {"dtype": "bfloat16"},
    {"dtype": "bfloat16", "kv_dtype": "int8"},
    {"dtype": "bfloat16", "quantize": "int8"},
    {"dtype": "float32", "quantize": "int8", "kv_dtype": "float32"},
]


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    try:
        load_library()
    except NativeUnavailable as error:
        pytest.skip(str(error))


def make(folder: Path, **changes: object) -> tuple[Path, list[Path]]:
    """A hybrid model and adapters of different ranks for it, on all projections and on some."""
    values: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 72,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 300,
        "sliding_window": 40,
        "kv_share": 2,
        "intermediate_size": 104,
        "initializer_range": 0.15,
        "attention_gate": True,
        "balance": BalanceConfig(expert_groups=2, partitions=2),
    }
    config = ModelConfig.model_validate(values | changes)
    torch.manual_seed(12)
    (folder / "model").mkdir()
    save_model(Transformer(config), folder / "model")
    random = np.random.default_rng(12)
    shares = (1.0, 0.6, 1.0)
    return folder / "model", [
        write_adapter(config, folder / f"adapter-{rank}", random, rank, share=share)
        for rank, share in zip(RANKS, shares, strict=True)
    ]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return make(
        tmp_path_factory.mktemp("mixture"),
        num_dense_layers=1,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        num_shared_experts=1,
        post_norms=True,
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return make(tmp_path_factory.mktemp("dense"))


def load(model: Path, adapters: list[Path], threads: int = 1, **options: object) -> NativeRunner:
    limits = EngineLimits(8, 128, 256, threads, adapters=len(adapters))
    runner = NativeRunner(model, limits, **options)  # type: ignore[arg-type]
    assert [runner.load_adapter(adapter) for adapter in adapters] == list(range(1, len(adapters) + 1))
    return runner


def play(runner: NativeRunner, prompts: list[list[int]], numbers: list[int], together: bool) -> list[np.ndarray]:
    """Logits of each prompt's last tokens, prefilled alone, then decoded together or one by one."""
    for slot, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
        runner.step([SequenceStep(slot, 0, prompt[:-6], adapter=number)])
    logits: list[list[np.ndarray]] = [[] for _ in prompts]
    for i in range(6, 0, -1):
        steps = [
            SequenceStep(slot, len(prompt) - i, [prompt[-i]], adapter=number)
            for slot, (prompt, number) in enumerate(zip(prompts, numbers, strict=True))
        ]
        for batch in [steps] if together else [[step] for step in steps]:
            for step, logits_V in zip(batch, runner.step(batch), strict=True):
                logits[step.slot].append(logits_V)
    return [np.array(rows) for rows in logits]


def draw_prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng()
    return [random.integers(0, VOCABULARY, random.integers(7, 90)).tolist() for _ in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", PRECISIONS)
def test_decoding_is_bit_for_bit_the_same_whatever_adapters_run_beside_it(
    mixture: tuple[Path, list[Path]], options: dict, threads: int
) -> None:
    runner = load(*mixture, threads=threads, **options)
    prompts, numbers = draw_prompts(8), [2, 0, 1, 2, 0, 3, 1, 1]
    together = play(runner, prompts, numbers, together=True)
    for ours, alone in zip(together, play(runner, prompts, numbers, together=False), strict=True):
        np.testing.assert_array_equal(ours, alone)
    bare = NativeRunner(mixture[0], EngineLimits(8, 128, 256), **options)
    unadapted = play(bare, prompts, [0] * 8, together=True)
    for slot in (1, 4):
        np.testing.assert_array_equal(together[slot], unadapted[slot])
    for slot in (0, 2, 3, 5, 6, 7):
        assert np.abs(together[slot] - unadapted[slot]).max() > 0.1


@pytest.mark.parametrize("options", PRECISIONS)
def test_a_step_without_adapters_is_bit_for_bit_that_of_a_runner_that_serves_none(
    mixture: tuple[Path, list[Path]], options: dict
) -> None:
    prompts = draw_prompts(4)
    steps = [SequenceStep(slot, 0, prompt) for slot, prompt in enumerate(prompts) if sum(map(len, prompts)) <= 256]
    steps = steps or [SequenceStep(0, 0, prompts[0])]
    bare = NativeRunner(mixture[0], EngineLimits(8, 128, 256), **options)
    np.testing.assert_array_equal(load(*mixture, **options).step(steps), bare.step(steps))


def test_results_come_in_the_batchs_order_whatever_adapters_it_names(dense: tuple[Path, list[Path]]) -> None:
    runner = load(*dense)
    random = np.random.default_rng()
    shares = [
        SequenceStep(slot, 0, random.integers(0, VOCABULARY, count).tolist(), wanted=wanted, adapter=adapter)
        for slot, (count, wanted, adapter) in enumerate([(9, 3, 3), (5, 5, 0), (20, 1, 1), (1, 1, 3), (12, 2, 0)])
    ]
    together = runner.step(shares)
    alone = np.concatenate([runner.step([share]) for share in shares])
    np.testing.assert_allclose(together, alone, atol=2e-4)


@pytest.mark.parametrize(("options", "bound"), [({}, 1e-4), ({"dtype": "bfloat16"}, 0.03), (PRECISIONS[3], 0.1)])
def test_the_change_is_that_of_merged_weights_in_any_precision(
    dense: tuple[Path, list[Path]], options: dict, bound: float
) -> None:
    """Relative to the change itself, and not much further from float64 than merged weights in the same precision."""
    model, adapters = dense
    tokens = np.random.default_rng().integers(0, VOCABULARY, 60).tolist()

    def change(number: int, reference: Transformer | None = None, runner: NativeRunner | None = None) -> np.ndarray:
        if reference is not None:
            with torch.inference_mode():
                return reference.logits(reference(torch.tensor([tokens])).hidden_BTD)[0].numpy()
        assert runner is not None
        return runner.step([SequenceStep(0, 0, tokens, wanted=len(tokens), adapter=number)]).astype(np.float64)

    runner = load(model, adapters, **options)
    base_TV = change(0, merged(model, None))
    served_TV = change(0, runner=runner)
    for number, adapter in enumerate(adapters, start=1):
        exact_TV = change(0, merged(model, adapter)) - base_TV
        ours_TV = change(number, runner=runner) - served_TV
        assert np.linalg.norm(ours_TV - exact_TV) < bound * np.linalg.norm(exact_TV)


def test_unloading_gives_the_memory_back(dense: tuple[Path, list[Path]]) -> None:
    model, adapters = dense
    runner = NativeRunner(model, EngineLimits(2, 64, 32, adapters=2))
    assert runner.adapter_bytes() == 0
    runner.load_adapter(adapters[0])
    one = runner.adapter_bytes()
    values = sum(
        delta.rank * (delta.inputs + delta.outputs)
        for delta in AdapterDescription.inspect(adapters[0]).modules.values()
    )
    assert 4 * values <= one < 1.5 * 4 * values + 8 * 4 * 256 * 4
    runner.load_adapter(adapters[1])
    runner.unload_adapter(2)
    assert runner.adapter_bytes() == one
    runner.unload_adapter(1)
    assert runner.adapter_bytes() == 0
    runner.close()
    runner.unload_adapter(1)
    with pytest.raises(ValueError, match="closed"):
        runner.load_adapter(adapters[0])


def test_an_adapter_for_which_there_is_no_memory_is_no_adapter(dense: tuple[Path, list[Path]]) -> None:
    """In a process of its own, whose address space is closed after the model is loaded."""
    program = """
        import resource, sys
        from pathlib import Path
        from fulmen_backend_cpu.native_runner import NativeRunner
        from fulmen_core.runner import EngineLimits, SequenceStep
        runner = NativeRunner(Path(sys.argv[1]), EngineLimits(2, 64, 32, 1, adapters=2))
        runner.unload_adapter(runner.load_adapter(Path(sys.argv[2])))  # all that Python needs is imported
        before = runner.step([SequenceStep(0, 0, [1, 2, 3])])
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), hard))
        try:
            runner.load_adapter(Path(sys.argv[2]))
        except MemoryError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert runner.adapter_bytes() == 0
        assert (runner.step([SequenceStep(0, 0, [1, 2, 3])]) == before).all()
        assert runner.load_adapter(Path(sys.argv[2])) == 1
    """
    model, adapters = dense
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not say how much address space is used")
    command = [sys.executable, "-c", textwrap.dedent(program), str(model), str(adapters[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not enough memory" in done.stdout


def test_a_closed_runner_is_freed_at_once(dense: tuple[Path, list[Path]]) -> None:
    runner = load(*dense)
    gone = weakref.ref(runner)
    del runner
    assert gone() is None, "a cycle would keep a model's memory until the next collection"
