"""The runner computes what the model computes: any plan, any mix, any chunking, forks, tokens taken back, reuse."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_cuda import runner as runner_module
from fulmen_backend_cuda.backend import CudaBackend
from fulmen_backend_cuda.runner import CudaRunner
from fulmen_backend_cuda.support import support_of
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import ModelConfig, RopeScaling
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits, Runner, SequenceStep
from fulmen_core.sampling import SamplingParams
from fulmen_testing.models import VOCABULARY, save_random_model

from .random_steps import Player, assert_equal_to_the_model, reference_logits
from .small_runners import BLOCK, CONTEXT, make, small_config


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a short context."""
    monkeypatch.setattr(runner_module, "_BLOCK_TOKENS", BLOCK)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.sampled_from([1, 2]))
    experts = draw(st.sampled_from([0, 8]))
    return small_config(
        num_hidden_layers=draw(st.integers(1, 6)),
        num_attention_heads=kv_heads * draw(st.sampled_from([1, 3])),
        num_key_value_heads=kv_heads,
        layer_pattern=draw(st.sampled_from(["SSSF", "SF", "F", "S", "FFS"])),
        sliding_window=draw(st.sampled_from([1, 2, 15, 16, 17, 40, 200])),
        kv_share=draw(st.integers(1, 3)),
        num_dense_layers=draw(st.integers(0, 1)),
        num_experts=experts,
        num_experts_per_tok=draw(st.sampled_from([1, 3])) if experts else 0,
        moe_intermediate_size=16 if experts else 0,
        num_shared_experts=draw(st.integers(0, 1)) if experts else 0,
        qk_norm=draw(st.booleans()),
        qk_norm_span=draw(st.sampled_from(["head", "projection"])),
        clip_qkv=draw(st.sampled_from([None, 0.5])),
        attention_gate=draw(st.booleans()),
        post_norms=draw(st.booleans()),
        router_score=draw(st.sampled_from(["softmax", "sigmoid"])),
        router_bias=draw(st.booleans()),
        rope_layers=draw(st.sampled_from(["all", "window"])),
        rope_scaling=draw(st.sampled_from([None, RopeScaling(rope_type="linear", factor=2.0)])),
        embedding_scale=draw(st.sampled_from([1.0, 24**0.5])),
        tie_word_embeddings=draw(st.booleans()),
    )


@settings(max_examples=40, deadline=None)
@given(
    configs(), st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([7, 40, 200]), st.integers(0, 5), st.booleans()
)
def test_random_steps_equal_the_whole_forward_pass(
    config: ModelConfig, seed: int, sequences: int, tokens: int, draft: int, padded: bool
) -> None:
    limits = EngineLimits(sequences, CONTEXT, tokens, cached_sequences=2, draft_tokens=draft)
    with tempfile.TemporaryDirectory() as folder:
        directory = save_random_model(config, seed, Path(folder))
        runner = make(directory, limits, padded=padded)
        assert_equal_to_the_model(directory, Player(runner, np.random.default_rng(seed)).play(12))


def test_decode_steps_run_in_a_few_fixed_sizes(tmp_path: Path) -> None:
    directory = save_random_model(small_config(), 4, tmp_path)
    runner = make(directory, EngineLimits(11, CONTEXT, 40), padded=True)
    player = Player(runner, np.random.default_rng(4))
    assert assert_equal_to_the_model(directory, player.play(60)) > 100
    assert runner._graphs is not None
    assert set(runner._graphs.recorded) <= {1, 2, 4, 8, 11}
    assert len(runner._graphs.recorded) >= 3


def test_compiled_steps_compute_what_plain_ones_do() -> None:
    # In a process of its own: modules that other tests have imported may keep torch's compiler from starting.
    script = Path(__file__).with_name("compiled_steps.py")
    order = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(script)]
    done = subprocess.run(order, capture_output=True, text=True, check=False)
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compiling_is_the_users_choice(tmp_path: Path) -> None:
    directory = save_random_model(small_config(num_hidden_layers=1), 8, tmp_path)
    backend = CudaBackend(device="cpu")
    runner = backend.load_runner(directory, EngineLimits(), compile="no")
    assert isinstance(runner, CudaRunner)
    assert runner.choices["compile"] == "no: not asked for"
    with pytest.raises(CapabilityError, match="does not take for compile maybe: use one of yes, no"):
        backend.load_runner(directory, EngineLimits(), compile="maybe")


def test_a_slot_without_pages_of_its_own_takes_those_of_its_number(tmp_path: Path) -> None:
    directory = save_random_model(small_config(), 6, tmp_path)
    runner = make(directory, EngineLimits(3, CONTEXT, 80))
    tokens = np.random.default_rng(6).integers(0, VOCABULARY, 70).tolist()
    got = [runner.step([SequenceStep(2, 0, tokens[:50]), SequenceStep(0, 0, tokens[:30])])]
    got.append(runner.step([SequenceStep(0, 30, tokens[30:60]), SequenceStep(2, 50, [tokens[50]])]))
    expected_TV = reference_logits(load_model(directory, torch.float64), tokens)
    np.testing.assert_allclose(np.concatenate(got), expected_TV[[49, 29, 59, 50]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_stay_as_close_to_float64_as_the_model_itself(tmp_path: Path, dtype: Dtype) -> None:
    # Without experts: a 16-bit router may rightly pick others, and then nothing can be compared.
    directory = save_random_model(small_config(num_experts=0, num_experts_per_tok=0), 3, tmp_path)
    runner = make(directory, EngineLimits(3, CONTEXT, 32), dtype)
    exact, own = load_model(directory, torch.float64), load_model(directory, getattr(torch, dtype))
    errors, own_errors = [], []
    for sequence in Player(runner, np.random.default_rng(3)).play(20):
        expected_TV, own_TV = reference_logits(exact, sequence.tokens), reference_logits(own, sequence.tokens)
        for position, logits_V in sequence.logits.items():
            errors.append(np.abs(logits_V - expected_TV[position]).mean())
            own_errors.append(np.abs(own_TV[position] - expected_TV[position]).mean())
    assert np.mean(errors) < 1.3 * np.mean(own_errors)


def test_experts_in_8_bits_move_logits_by_their_rounding_and_take_a_quarter_of_the_memory(tmp_path: Path) -> None:
    # All experts are chosen: the router cannot pick others, so that nothing but the rounding differs.
    config = small_config(num_experts=4, num_experts_per_tok=4)
    directory = save_random_model(config, 8, tmp_path)
    limits = EngineLimits(2, CONTEXT, 80)
    exact, rounded = make(directory, limits), make(directory, limits, quantize="fp8")
    tokens = np.random.default_rng(8).integers(0, VOCABULARY, 60).tolist()
    batch = [SequenceStep(0, 0, tokens, wanted=60)]
    expected, got = exact.step(batch), rounded.step(batch)
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.1
    whole = sum(tensor.numel() for name, tensor in exact._forward.model.named_parameters() if "experts" in name)
    assert sum(tensor.numel() for name, tensor in rounded._forward.model.named_parameters() if "experts" in name) == 0
    held = sum(mix.nbytes for mix in rounded._forward._mixes if mix is not None)  # type: ignore[attr-defined]
    assert whole <= held <= 1.2 * whole  # a byte each, and scales


@settings(max_examples=20, deadline=None)
@given(configs(), st.integers(1, 9), st.integers(1, 60), st.integers(0, 9))
def test_memory_is_what_the_cache_spec_says_in_whole_blocks(
    config: ModelConfig, sequences: int, context: int, draft: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runner = make(
            save_random_model(config, 0, Path(folder)), EngineLimits(sequences, context, 16, draft_tokens=draft)
        )
    blocks = 0
    for group in CacheSpec.of(config).groups:
        if group.window is None:
            each, units = -(-context // BLOCK), sequences
        else:
            each, units = -(-(group.window + draft) // BLOCK), sequences
        blocks += len(group.caches) * (each * units + (1 if group.window is None else each))
    assert runner.kv_bytes() == blocks * BLOCK * CacheSpec.of(config).elements_per_token * 4


def test_greedy_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    directory = save_random_model(small_config(), 9, tmp_path)
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 60)).tolist() for _ in range(9)]
    params = SamplingParams(temperature=0, max_tokens=16)
    answers = [
        generate(make(directory, EngineLimits(slots, CONTEXT, tokens), padded=padded), prompts, params)
        for slots, tokens, padded in ((1, 64, False), (4, 9, True), (9, 128, True))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_hidden_states_are_those_that_the_head_sees(tmp_path: Path) -> None:
    directory = save_random_model(small_config(), 1, tmp_path)
    runner = make(directory, EngineLimits(2, CONTEXT, 64))
    batch = [SequenceStep(0, 0, [1, 2, 3, 4], wanted=2), SequenceStep(1, 0, [5])]
    hidden_RD = runner.hidden(batch)
    head_VD = load_model(directory, torch.float32).head_weight_VD.detach().numpy()
    np.testing.assert_allclose(hidden_RD @ head_VD.T, runner.step(batch), atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([], "at least one sequence"),
        ([SequenceStep(0, 0, [VOCABULARY])], "token 61 is outside"),
        ([SequenceStep(3, 0, [1])], "slots"),
        ([SequenceStep(0, CONTEXT, [1])], "position 90 is outside"),
        ([SequenceStep(0, 20, [1], pages=[0])], "1 pages do not hold 21 tokens"),
        ([SequenceStep(0, 0, [1], pages=[99])], "page 99 is not one of"),
        ([SequenceStep(0, 0, [1], adapter=1)], "adapter 1 is not loaded"),
    ],
)
def test_a_step_that_would_leave_the_memory_is_refused(tmp_path: Path, batch: list[SequenceStep], words: str) -> None:
    runner = make(save_random_model(small_config(), 1, tmp_path), EngineLimits(2, CONTEXT, 64))
    with pytest.raises(ValueError, match=words):
        runner.step(batch)


def test_closing_gives_back_the_memory_and_may_be_repeated(tmp_path: Path) -> None:
    runner = make(save_random_model(small_config(), 0, tmp_path), EngineLimits(), padded=True)
    runner.step([SequenceStep(0, 0, [1])])
    weights, cache = weakref.ref(runner._forward.model.embed.weight), weakref.ref(runner._kv[0].k_PKh)
    runner.close()
    runner.close()
    gc.collect()
    assert weights() is None
    assert cache() is None
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.step([SequenceStep(0, 0, [1])])


def test_what_cannot_be_kept_in_8_bits_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    (tmp_path / "odd").mkdir()
    dense = save_random_model(small_config(num_experts=0, num_experts_per_tok=0), 0, tmp_path / "dense")
    odd = save_random_model(small_config(moe_intermediate_size=24), 0, tmp_path / "odd")
    backend = CudaBackend(device="cpu")
    with pytest.raises(CapabilityError, match="no experts to keep in fp8: leave --quantize out"):
        backend.load_runner(dense, EngineLimits(), quantize="fp8")
    with pytest.raises(CapabilityError, match="size 24 is no multiple of 16"):
        backend.load_runner(odd, EngineLimits(), quantize="fp8")
    with pytest.raises(CapabilityError, match="does not quantise to int8: use fp8"):
        backend.load_runner(dense, EngineLimits(), quantize="int8")
    with pytest.raises(CapabilityError, match="keeps keys and values in the dtype it serves in, bfloat16, not in int8"):
        backend.load_runner(dense, EngineLimits(), "bfloat16", kv_dtype="int8")


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-2), ("bfloat16", None), ("float16", None)], ids=str)
def test_the_gpu_computes_what_the_model_computes(
    gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, tolerance: float | None
) -> None:
    monkeypatch.setattr(runner_module, "_BLOCK_TOKENS", 64)
    config = small_config(
        num_experts=0,
        num_experts_per_tok=0,
        hidden_size=128,
        head_dim=64,
        max_position_embeddings=700,
        sliding_window=150,
    )
    directory = save_random_model(config, 3, tmp_path)
    support = support_of(torch.cuda.get_device_capability(gpu), 100)
    runner = CudaRunner(
        directory, EngineLimits(5, 700, 300, cached_sequences=2), dtype, quantize=None, device="cuda", support=support
    )
    played = Player(runner, np.random.default_rng(3)).play(60)
    if tolerance is not None:
        assert assert_equal_to_the_model(directory, played, tolerance) > 100
        return
    exact, own = load_model(directory, torch.float64), load_model(directory, getattr(torch, dtype))
    errors, own_errors = [], []
    for sequence in played:
        expected_TV, own_TV = reference_logits(exact, sequence.tokens), reference_logits(own, sequence.tokens)
        for position, logits_V in sequence.logits.items():
            errors.append(np.abs(logits_V - expected_TV[position]).mean())
            own_errors.append(np.abs(own_TV[position] - expected_TV[position]).mean())
    assert np.mean(errors) < 1.5 * np.mean(own_errors)


@pytest.mark.gpu
@pytest.mark.parametrize("quantize", [None, "fp8"])
def test_experts_on_the_gpu_are_as_close_to_float64_as_those_of_the_cpu(
    gpu: torch.device, tmp_path: Path, quantize: Quantization | None
) -> None:
    backend = CudaBackend()
    if quantize is not None and quantize not in backend.capabilities().quantizations:
        pytest.skip("this GPU has no grouped products of 8-bit floats")
    directory = save_random_model(
        small_config(hidden_size=64, head_dim=16, num_experts=4, num_experts_per_tok=4), 5, tmp_path
    )
    limits = EngineLimits(8, CONTEXT, 128)
    tokens = np.random.default_rng(5).integers(0, VOCABULARY, 80).tolist()
    ours = backend.load_runner(directory, limits, "bfloat16", quantize=quantize)
    theirs = make(directory, limits, "bfloat16", quantize)
    exact_TV = reference_logits(load_model(directory, torch.float64), [*tokens, *[7] * 10])
    prompt, singles = [SequenceStep(0, 0, tokens, wanted=80)], [[SequenceStep(0, 80 + at, [7])] for at in range(10)]

    def errors(runner: Runner) -> list[float]:
        """Of the prompt, and of the single steps together: that of one token is as good as chance."""
        parts = runner.step(prompt), np.concatenate([runner.step(single) for single in singles])
        return [
            float(np.linalg.norm(part - exact)) for part, exact in zip(parts, np.split(exact_TV, [80]), strict=True)
        ]

    for error, other in zip(errors(ours), errors(theirs), strict=True):
        assert error < 1.5 * other
