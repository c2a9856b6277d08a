"""Both CPU runners compute what the model computes: any plan, any chunking, any mix, any reuse of slots."""

from __future__ import annotations

import gc
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_testing.agreement import assert_equal, in_float64, settled_logits
from fulmen_testing.models import DEEP, VOCABULARY, save_random_model, with_changes

from .mixed_steps import AnyRunner, Played, drive

CONTEXT = 40
ROUTING_TIE = 1e-5  # of scores
YARN = RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.sampled_from([1, 2]))
    layers = draw(st.integers(1, 7))
    experts = draw(st.sampled_from([0, 4, 8]))
    return ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=kv_heads * draw(st.sampled_from([1, 3])),
        num_key_value_heads=kv_heads,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        layer_pattern=draw(st.sampled_from(["SSSF", "SF", "F", "S", "FFS"])),
        sliding_window=draw(st.sampled_from([1, 2, 5, 8, 13, 64])),
        kv_share=draw(st.integers(1, 3)),
        intermediate_size=32,
        num_dense_layers=draw(st.integers(0, 1)),
        num_experts=experts,
        num_experts_per_tok=draw(st.sampled_from([1, 3])) if experts else 0,
        moe_intermediate_size=16 if experts else 0,
        num_shared_experts=draw(st.integers(0, 1)) if experts else 0,
        norm_topk_prob=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        router_score=draw(st.sampled_from(["softmax", "sigmoid"])),
        router_bias=draw(st.booleans()),
        router_scale=draw(st.sampled_from([1.0, 2.5])),
        rope_scaling=draw(st.sampled_from([None, RopeScaling(rope_type="linear", factor=2.0), YARN])),
        rope_layers=draw(st.sampled_from(["all", "window"])),
        qk_norm_span=draw(st.sampled_from(["head", "projection"])),
        clip_qkv=draw(st.sampled_from([None, 0.5])),
        attention_gate=draw(st.booleans()),
        post_norms=draw(st.booleans()),
        embedding_scale=draw(st.sampled_from([1.0, 24**0.5])),
        initializer_range=0.3,  # wide enough that attention and routing are far from uniform
        balance=BalanceConfig(expert_groups=2, partitions=2),
    )


def reference_logits(model: Transformer, tokens: list[int]) -> np.ndarray:
    """Logits after every token, of the whole row at once; those after a token whose routing is a coin toss are NaN."""
    return settled_logits(model, tokens, ROUTING_TIE)


def assert_equal_to_the_model(directory: Path, played: list[Played]) -> None:
    assert_equal(in_float64(directory), played, tie=ROUTING_TIE)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs(), st.integers(0, 2**31), st.sampled_from([(1, 16), (3, 7), (5, 64)]))
def test_mixed_steps_equal_the_whole_forward_pass(
    runner_class: type[AnyRunner], config: ModelConfig, seed: int, shape: tuple[int, int]
) -> None:
    limits = EngineLimits(max_sequences=shape[0], max_context=CONTEXT, max_step_tokens=shape[1])
    with tempfile.TemporaryDirectory() as folder:
        directory = save_random_model(config, seed, Path(folder))
        runner = runner_class(directory, limits)
        assert_equal_to_the_model(directory, drive(runner, np.random.default_rng(seed), 10, VOCABULARY))


def test_long_sequences_attend_one_by_one_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(sliding_window=8)
    directory = save_random_model(config, 5, tmp_path)
    monkeypatch.setattr("fulmen_backend_cpu.runner._TOGETHER_TOKENS", 4)
    runner = CpuRunner(directory, EngineLimits(max_sequences=4, max_context=CONTEXT, max_step_tokens=32))
    assert_equal_to_the_model(directory, drive(runner, np.random.default_rng(5), 25, VOCABULARY))


def test_bfloat16_stays_as_close_to_float64_as_the_model_itself(runner_class: type[AnyRunner], tmp_path: Path) -> None:
    # Without experts: a bfloat16 router may rightly pick others, and then nothing can be compared.
    directory = save_random_model(_config(num_experts=0), 3, tmp_path)
    limits = EngineLimits(max_sequences=3, max_context=CONTEXT, max_step_tokens=32)
    runner = runner_class(directory, limits, "bfloat16")
    exact, own = load_model(directory, torch.float64), load_model(directory, torch.bfloat16)
    errors, own_errors = [], []
    for sequence in drive(runner, np.random.default_rng(3), 20, VOCABULARY):
        expected_TV, own_TV = reference_logits(exact, sequence.tokens), reference_logits(own, sequence.tokens)
        for position, logits_V in sequence.logits.items():
            errors.append(np.abs(logits_V - expected_TV[position]).mean())
            own_errors.append(np.abs(own_TV[position] - expected_TV[position]).mean())
    assert np.mean(errors) < 1.3 * np.mean(own_errors)


@settings(max_examples=30, deadline=None)
@given(configs(), st.sampled_from(["float32", "bfloat16"]), st.integers(1, 9), st.integers(1, 60))
def test_memory_is_what_the_cache_spec_says(config: ModelConfig, dtype: str, slots: int, context: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = save_random_model(config, 0, Path(folder))
        runner = CpuRunner(directory, EngineLimits(slots, context, 16), dtype)  # type: ignore[arg-type]
    element_bytes = {"float32": 4, "bfloat16": 2}[dtype]
    expected = CacheSpec.of(config).bytes_per_sequence(min(context, CONTEXT), element_bytes)
    assert runner.kv_bytes() == slots * expected


def test_the_context_is_cut_to_the_positions_of_the_model(runner_class: type[AnyRunner], tmp_path: Path) -> None:
    runner = runner_class(save_random_model(_config(), 0, tmp_path), EngineLimits(max_context=10_000))
    assert runner.limits.max_context == CONTEXT


def test_greedy_answers_do_not_depend_on_the_batch(runner_class: type[AnyRunner], tmp_path: Path) -> None:
    directory = save_random_model(_config(), 9, tmp_path)
    random = np.random.default_rng(9)
    prompts = [random.integers(0, VOCABULARY, random.integers(1, 20)).tolist() for _ in range(9)]
    params = SamplingParams(temperature=0, max_tokens=16)
    answers = [
        generate(runner_class(directory, EngineLimits(slots, CONTEXT, tokens)), prompts, params)
        for slots, tokens in ((1, 64), (4, 9), (9, 128))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_closing_gives_back_the_memory_and_may_be_repeated(tmp_path: Path) -> None:
    runner = CpuRunner(save_random_model(_config(), 0, tmp_path), EngineLimits())
    weights, cache = weakref.ref(runner._model.embed.weight), weakref.ref(runner._kv._caches[0].k)
    runner.close()
    runner.close()
    gc.collect()
    assert weights() is None
    assert cache() is None


def _config(**changes: object) -> ModelConfig:
    small = {"hidden_size": 24, "head_dim": 8, "max_position_embeddings": CONTEXT, "sliding_window": 6}
    return with_changes(DEEP, small | changes)
