"""The native runner: its kernels against float64, what it promises of batches, windows, precision and bad input."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_cpu import plugin
from fulmen_backend_cpu.backend import CpuBackend
from fulmen_backend_cpu.native_library import Format, features, load_library
from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_backend_cpu.native_sources import SERVING
from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core import native_build
from fulmen_core.errors import CapabilityError
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.native_build import Compiler, NativeUnavailable, build_library, find_compiler
from fulmen_core.runner import EngineLimits, SequenceStep

VOCABULARY = 67
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # of x86-64 Linux


@pytest.fixture(scope="module", autouse=True)
def library() -> ctypes.CDLL:
    try:
        return load_library()
    except NativeUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid MoE with every choice of AFMoE's, windows of 40 tokens, and shared caches."""
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=3000,
        layer_pattern="SSSF",
        sliding_window=40,
        kv_share=2,
        intermediate_size=96,
        num_dense_layers=1,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        num_shared_experts=1,
        router_score="sigmoid",
        router_bias=True,
        rope_layers="window",
        attention_gate=True,
        post_norms=True,
        embedding_scale=8.0,
        initializer_range=0.2,
        balance=BalanceConfig(expert_groups=2, partitions=2),
    )
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(11)
    save_model(Transformer(config), directory)
    return directory


def product(library: ctypes.CDLL, fmt: Format, x: np.ndarray, weights: np.ndarray, threads: int = 1) -> np.ndarray:
    out = np.full((len(x), len(weights)), np.nan, np.float32)
    x, weights = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(weights, np.float32)
    arguments = (x.ctypes.data, weights.ctypes.data, out.ctypes.data)
    assert library.fulmen_product(threads, fmt, len(x), len(weights), x.shape[1], *arguments, 1) >= 0
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(Format)), st.integers(1, 40), st.integers(1, 200), st.integers(1, 300), st.integers(0, 2**31)
)
def test_products_of_any_shape_are_those_of_float64(
    fmt: Format, rows: int, outputs: int, inputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x, weights = random.standard_normal((rows, inputs)), random.standard_normal((outputs, inputs))
    error = product(load_library(), fmt, x, weights) - x @ weights.T
    # Of one product, relative: float32 sums, two bfloat16 roundings, or two to 127 levels of up to 4 deviations.
    tolerance = {Format.FLOAT32: 1e-5, Format.BFLOAT16: 0.01, Format.INT8: 0.06}[fmt]
    assert np.abs(error).max() < tolerance * (1 + 5 * np.sqrt(inputs)) * 1.5


@pytest.mark.parametrize("rows", [2, 5, 13, 17, 45])
@pytest.mark.parametrize("fmt", list(Format))
def test_a_rows_product_does_not_depend_on_its_neighbours(library: ctypes.CDLL, fmt: Format, rows: int) -> None:
    random = np.random.default_rng(1)
    x, weights = random.standard_normal((rows, 160)), random.standard_normal((80, 160))
    together = product(library, fmt, x, weights)
    for row in range(rows):
        np.testing.assert_array_equal(product(library, fmt, x[row : row + 1], weights)[0], together[row])


@pytest.mark.parametrize("rows", [15, 64, 70, 79, 80, 133, 300])
@pytest.mark.parametrize("fmt", list(Format))
def test_more_threads_change_nothing(library: ctypes.CDLL, fmt: Format, rows: int) -> None:
    random = np.random.default_rng(2)
    x, weights = random.standard_normal((rows, 96)), random.standard_normal((500, 96))
    alone = product(library, fmt, x, weights, 1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(product(library, fmt, x, weights, threads), alone)


def test_matrix_units_are_used_where_the_processor_has_them(library: ctypes.CDLL) -> None:
    """Found wrong they would be left out in silence, and every product still be right."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    if not {"amx_tile", "amx_bf16", "amx_int8"} <= set(flags):
        pytest.skip("this processor has no matrix units")
    if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA):
        pytest.skip("the system does not lend the matrix units")
    assert features(library).amx


@pytest.mark.slow
def test_matrix_units_are_addressed_right(tmp_path: Path) -> None:
    """AMX replaced by loops over the same tiles: every format, on any machine."""
    flags = [*SERVING.all_flags(), "-O1", "-DFULMEN_EMULATE_AMX"]
    made = tmp_path / "emulated.so"
    sources = [str(path) for path in SERVING.sources.glob("*.cpp")]
    subprocess.run([find_compiler().path, *flags, *sources, "-o", str(made)], check=True)
    # In a process of its own: both libraries export the same names.
    done = subprocess.run([sys.executable, __file__, str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="levels of x86-64")
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3"])
def test_kernels_for_older_processors_compute_the_same(tmp_path: Path, level: str) -> None:
    """What the runners and adapters promise, held to kernels without AVX-512, or without AVX, on any machine."""
    if level == "x86-64-v3" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    program = (
        "import sys, pytest; from fulmen_core import native_build;"
        "native_build.target_flags = lambda: (sys.argv[1], '-O1');"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[2:]]))"
    )
    here = Path(__file__).parent
    tests = [str(here / f"test_cpu_{name}.py") for name in ("runner", "cache_sharing", "adapters_native", "draw")]
    done = subprocess.run(
        [sys.executable, "-c", program, f"-march={level}", *tests, "-k", "not torch"],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "fulmen" / "native").is_dir()  # it was compiled for this level


def decode(runner: NativeRunner, prompts: list[list[int]], tokens: int, together: bool) -> list[np.ndarray]:
    """Logits [tokens, V] of each prompt's continuation, prefilled alone, then decoded together or one by one."""
    random = np.random.default_rng(3)
    continuations = random.integers(0, VOCABULARY, (tokens, len(prompts))).tolist()
    for slot, prompt in enumerate(prompts):
        runner.step([SequenceStep(slot, 0, prompt)])
    logits: list[list[np.ndarray]] = [[] for _ in prompts]
    for i, row in enumerate(continuations):
        steps = [SequenceStep(slot, len(prompts[slot]) + i, [token]) for slot, token in enumerate(row)]
        for batch in [steps] if together else [[step] for step in steps]:
            for step, logits_V in zip(batch, runner.step(batch), strict=True):
                logits[step.slot].append(logits_V)
    return [np.array(rows) for rows in logits]


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "quantize": "int8"}])
def test_decoding_is_bit_for_bit_the_same_in_any_batch(model_dir: Path, options: dict) -> None:
    random = np.random.default_rng(4)
    prompts = [random.integers(0, VOCABULARY, n).tolist() for n in (1, 90, 17, 33, 60, 5, 41)]
    runner = NativeRunner(model_dir, EngineLimits(7, 128, 128), **options)
    for alone, together in zip(decode(runner, prompts, 6, False), decode(runner, prompts, 6, True), strict=True):
        np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_context_is_attended_in_parts(model_dir: Path, threads: int) -> None:
    tokens = np.random.default_rng(5).integers(0, VOCABULARY, 2200).tolist()
    runner = NativeRunner(model_dir, EngineLimits(1, 2300, 300, threads))
    for start in range(0, 2199, 300):
        runner.step([SequenceStep(0, start, tokens[start : min(start + 300, 2199)])])
    logits_V = runner.step([SequenceStep(0, 2199, tokens[2199:])])[0]
    model = load_model(model_dir)
    with torch.inference_mode():
        expected_V = model.logits(model(torch.tensor([tokens])).hidden_BTD[0, -1]).numpy()
    np.testing.assert_allclose(logits_V, expected_V, atol=2e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A small dense model that has learned a noisy cycle of tokens, and 200 tokens of it that it has not seen."""
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=64,
        intermediate_size=128,
    )
    model = Transformer(config)
    random = np.random.default_rng(0)

    def noisy(length: int) -> list[int]:
        row = [int(random.integers(VOCABULARY))]
        while len(row) < length:
            row.append((3 * row[-1] + 1) % VOCABULARY if random.random() < 0.8 else int(random.integers(VOCABULARY)))
        return row

    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(80):
        batch = torch.tensor([noisy(64) for _ in range(16)])
        logits = model.logits(model(batch[:, :-1]).hidden_BTD)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    directory = tmp_path_factory.mktemp("trained")
    save_model(model, directory)
    return directory, noisy(200)


def perplexity(runner: NativeRunner, tokens: list[int]) -> float:
    losses = []
    for i, token in enumerate(tokens[:-1]):
        logits_V = runner.step([SequenceStep(0, i, [token])])[0].astype(np.float64)
        losses.append(np.log(np.exp(logits_V - logits_V.max()).sum()) + logits_V.max() - logits_V[tokens[i + 1]])
    return float(np.exp(np.mean(losses)))


@pytest.mark.parametrize(
    "options", [{"quantize": "int8"}, {"kv_dtype": "int8"}, {"quantize": "int8", "kv_dtype": "int8"}]
)
def test_eight_bits_cost_little_perplexity(trained: tuple[Path, list[int]], options: dict) -> None:
    directory, tokens = trained
    limits = EngineLimits(1, 256, 256)
    exact = perplexity(NativeRunner(directory, limits), tokens)
    assert exact < 0.5 * VOCABULARY  # it has learned something that rounding could spoil
    assert abs(perplexity(NativeRunner(directory, limits, "bfloat16", **options), tokens) / exact - 1) < 0.005


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["float32", "bfloat16", "int8"]), st.integers(1, 9), st.integers(1, 300))
def test_cache_memory_is_the_specs_in_whole_pages_and_blocks(kv_dtype: str, slots: int, context: int) -> None:
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        sliding_window=40,
        intermediate_size=64,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(Transformer(config), folder)
        runner = NativeRunner(Path(folder), EngineLimits(slots, context, 16), kv_dtype=kv_dtype)
        spec = CacheSpec.of(config)
        layout = runner.layout
        whole = layout.pages_for(context) * layout.page_tokens  # at most 127 tokens more than the context
        tokens = {
            group.window: whole if group.window is None else -(-group.tokens(context) // 32) * 32
            for group in spec.groups
        }
        places = sum(len(group.caches) * tokens[group.window] for group in spec.groups)
        element = {"float32": 4, "bfloat16": 2, "int8": 1}[kv_dtype]
        scales = 2 * config.num_key_value_heads * 4 if kv_dtype == "int8" else 0
        assert runner.kv_bytes() == slots * places * (spec.elements_per_token * element + scales)
        runner.close()


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([], "at least one sequence"),
        ([SequenceStep(0, 0, [])], "at least one token"),
        ([SequenceStep(0, 0, [VOCABULARY])], "outside the 67"),
        ([SequenceStep(0, 0, [-1])], "outside the 67"),
        ([SequenceStep(2, 0, [1])], "slots"),
        ([SequenceStep(0, 0, [1]), SequenceStep(0, 1, [1])], "slots"),
        ([SequenceStep(0, 60, [1] * 5)], "outside the 64 reserved"),
        ([SequenceStep(0, 0, [1] * 33)], "more than the 32"),
    ],
)
def test_a_step_that_would_leave_the_memory_is_refused(model_dir: Path, batch: list, words: str) -> None:
    runner = NativeRunner(model_dir, EngineLimits(2, 64, 32))
    with pytest.raises(ValueError, match=words):
        runner.step(batch)
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.step([SequenceStep(0, 0, [1])])


def test_without_a_compiler_the_torch_runner_serves_and_says_why(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    load_library.cache_clear()
    try:
        runner = CpuBackend().load_runner(model_dir, EngineLimits(1, 64, 32))
        assert isinstance(runner, CpuRunner)
        assert "no C++ compiler" in runner.choices["runner_reason"]
        assert "no C++ compiler" in caplog.text
        with pytest.raises(CapabilityError, match=r"int8.*no C\+\+ compiler"):
            CpuBackend().load_runner(model_dir, EngineLimits(1, 64, 32), quantize="int8")
    finally:
        load_library.cache_clear()


def test_the_probe_says_what_serving_will_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "compiled" in plugin.probe().versions["native kernels"]
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    assert plugin.probe().versions["native kernels"] == (
        "no, serving on PyTorch: there is no C++ compiler (g++ or clang++)"
    )


def test_the_native_runner_is_the_default(model_dir: Path) -> None:
    runner = CpuBackend().load_runner(model_dir, EngineLimits(1, 64, 32), "bfloat16", quantize="int8")
    assert isinstance(runner, NativeRunner)
    assert runner.choices["weights"] == "int8"


def test_a_compiler_that_fails_leaves_no_library_behind(tmp_path: Path) -> None:
    false = Compiler("/bin/false", "a compiler that fails")
    with pytest.raises(NativeUnavailable, match="a compiler that fails"):
        build_library(SERVING, false, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runners_in_several_threads_do_not_disturb_each_other(model_dir: Path) -> None:
    tokens = np.random.default_rng(6).integers(0, VOCABULARY, 100).tolist()
    results: list[np.ndarray] = []

    def play() -> None:
        runner = NativeRunner(model_dir, EngineLimits(1, 128, 64, threads=2))
        results.append(
            np.concatenate([runner.step([SequenceStep(0, i, tokens[i : i + 10])]) for i in range(0, 100, 10)])
        )

    threads = [threading.Thread(target=play) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def _check_emulated(path: str) -> None:
    from fulmen_backend_cpu.native_library import open_library

    library = open_library(Path(path))
    assert features(library).amx
    random = np.random.default_rng(0)
    for fmt in Format:
        for rows, outputs, inputs in ((16, 64, 32), (33, 70, 100), (90, 130, 256)):
            x, weights = random.standard_normal((rows, inputs)), random.standard_normal((outputs, inputs))
            error = product(library, fmt, x, weights) - x @ weights.T
            assert np.abs(error).max() < 0.05 * np.sqrt(inputs) + 1e-4, (fmt, rows, np.abs(error).max())
            # the emulation adds in the units' order, which the kernels of a few rows keep
            alone, together = product(library, fmt, x[:1], weights), product(library, fmt, x, weights)
            np.testing.assert_array_equal(alone[0], together[0])


if __name__ == "__main__":
    _check_emulated(sys.argv[1])
