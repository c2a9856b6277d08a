"""Both CPU runners with LoRA adapters compute what PEFT computes, and what the model with merged weights does."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.adapters.projections import projection_places
from fulmen_core.errors import UserError
from fulmen_core.formats.huggingface import read
from fulmen_core.formats.writing import write_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.runner import EngineLimits, SequenceStep

from . import adapter_models as models
from .test_cpu_runner import CONTEXT, AnyRunner, configs, needs_native, poison, reference_logits, saved
from .test_cpu_runner import VOCABULARY as SMALL_VOCABULARY

#: Of float32 against float64 in a random model that amplifies it: of every position, 1.2e-4 was the most in thousands.
ROUNDING = 5e-4


@pytest.fixture(params=[CpuRunner, NativeRunner], ids=["torch", "native"])
def runner_class(request: pytest.FixtureRequest) -> type[AnyRunner]:
    if request.param is NativeRunner:
        needs_native()
    chosen: type[AnyRunner] = request.param
    return chosen


@dataclass
class Played:
    """A sequence that was run: its adapter, its tokens, and the logits it got after some of them."""

    adapter: str | None
    tokens: list[int] = field(default_factory=list)
    logits: dict[int, np.ndarray] = field(default_factory=dict)


def drive(
    runner: AnyRunner, folders: Mapping[str, Path], random: np.random.Generator, steps: int, vocabulary: int
) -> list[Played]:
    """Run random mixed steps: chunks and single tokens of sequences with adapters and without.

    Slots are used again, and adapters that no sequence has are unloaded and loaded again.
    """
    limits = runner.limits
    numbers: dict[str, int] = {}
    played: list[Played] = []
    current: dict[int, Played] = {}
    for _ in range(steps):
        budget = limits.max_step_tokens
        batch = []
        for slot in random.permutation(limits.max_sequences).tolist():
            if slot in current and (len(current[slot].tokens) == limits.max_context or random.random() < 0.1):
                runner.release(slot)
                poison(runner, slot)
                del current[slot]
            if slot not in current:
                current[slot] = Played([None, *folders][len(played) % (len(folders) + 1)])
                played.append(current[slot])
            sequence = current[slot]
            room = min(budget, limits.max_context - len(sequence.tokens))
            if room == 0 or random.random() < 0.2:
                continue
            if sequence.adapter is not None and sequence.adapter not in numbers:
                unused = [name for name in numbers if name not in {other.adapter for other in current.values()}]
                if len(numbers) == limits.adapters and not unused:
                    continue
                if unused:
                    runner.unload_adapter(numbers.pop(unused[0]))
                numbers[sequence.adapter] = runner.load_adapter(folders[sequence.adapter])
            count = 1 if sequence.tokens and random.random() < 0.5 else int(random.integers(1, room + 1))
            new = random.integers(0, vocabulary, count).tolist()
            adapter = 0 if sequence.adapter is None else numbers[sequence.adapter]
            batch.append(SequenceStep(slot, len(sequence.tokens), new, wanted=count, adapter=adapter))
            sequence.tokens.extend(new)
            budget -= count
        if not batch:
            continue
        logits_RV = runner.step(batch)
        row = 0
        for step in batch:
            for i in range(len(step.token_ids)):
                current[step.slot].logits[step.start + i] = logits_RV[row]
                row += 1
    return [sequence for sequence in played if sequence.tokens]


@pytest.fixture(scope="module", params=models.FAMILIES)
def adapted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[models.Adapted, Path]:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapted")
    made = models.make_adapted(request.param, folder, secrets.randbelow(2**31))
    write_model(read(made.original), folder / "model")
    return made, folder / "model"


def test_the_models_have_every_kind_of_projection(adapted: tuple[models.Adapted, Path]) -> None:
    made, directory = adapted
    config = load_config(directory)
    description = AdapterDescription.inspect(made.folders["all"])
    assert description.modules.keys() == projection_places(config).keys()
    description.check(config, 64)


def test_mixed_steps_equal_peft(runner_class: type[AnyRunner], adapted: tuple[models.Adapted, Path]) -> None:
    made, directory = adapted
    limits = EngineLimits(max_sequences=5, max_context=60, max_step_tokens=40, adapters=3)
    seed = secrets.randbelow(2**31)
    played = drive(runner_class(directory, limits), made.folders, np.random.default_rng(seed), 12, models.VOCABULARY)
    assert {sequence.adapter for sequence in played} == {None, *made.folders}
    reference = models.merged(directory, None)
    references = {name: models.merged(directory, folder) for name, folder in made.folders.items()}
    compared = 0
    for sequence in played:
        expected_TV = made.logits(sequence.tokens, sequence.adapter)
        ours = references.get(sequence.adapter or "", reference)
        settled_T = ~np.isnan(reference_logits(ours, sequence.tokens)).any(1)  # no routing that is a coin toss
        for position, logits_V in sequence.logits.items():
            if settled_T[position]:
                np.testing.assert_allclose(logits_V, expected_TV[position], atol=2e-4, rtol=0, err_msg=f"seed {seed}")
                compared += 1
    assert compared > 100


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs(), st.integers(0, 2**31), st.sampled_from([(1, 16), (3, 7), (5, 64)]))
def test_mixed_steps_equal_merged_weights(
    runner_class: type[AnyRunner], config: ModelConfig, seed: int, shape: tuple[int, int]
) -> None:
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        directory = saved(config, root, seed)
        folders = {
            name: models.write_adapter(config, root / name, random, rank, share=share)
            for name, rank, share in (("a", 3, 1.0), ("b", 16, 0.5), ("c", 33, 0.3))
        }
        limits = EngineLimits(shape[0], CONTEXT, shape[1], adapters=2)
        played = drive(runner_class(directory, limits), folders, random, 10, SMALL_VOCABULARY)
        for name in (None, *folders):
            reference = models.merged(directory, folders.get(name or ""))
            for sequence in played:
                if sequence.adapter != name:
                    continue
                expected_TV = reference_logits(reference, sequence.tokens)
                for position, logits_V in sequence.logits.items():
                    if not np.isnan(expected_TV[position]).any():
                        np.testing.assert_allclose(logits_V, expected_TV[position], atol=ROUNDING, rtol=0)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, ModelConfig]:
    config = ModelConfig(
        vocab_size=SMALL_VOCABULARY,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        sliding_window=8,
        intermediate_size=32,
        initializer_range=0.3,
    )
    (tmp_path / "model").mkdir()
    return saved(config, tmp_path / "model", 1), config


def test_numbers_are_the_lowest_free_ones_and_only_as_many_as_the_limits_say(
    runner_class: type[AnyRunner], small: tuple[Path, ModelConfig], tmp_path: Path
) -> None:
    directory, config = small
    adapter = models.write_adapter(config, tmp_path / "a", np.random.default_rng(), 2)
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=3))
    assert [runner.load_adapter(adapter) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="all 3 adapters"):
        runner.load_adapter(adapter)
    runner.unload_adapter(2)
    runner.unload_adapter(2)
    assert runner.load_adapter(adapter) == 2
    with pytest.raises(ValueError, match="all 0 adapters"):
        runner_class(directory, EngineLimits(2, CONTEXT, 16)).load_adapter(adapter)


@pytest.mark.parametrize("number", [-1, 1, 2, 3, 99])
def test_a_step_with_an_adapter_that_is_not_loaded_is_refused_before_anything_is_computed(
    runner_class: type[AnyRunner], small: tuple[Path, ModelConfig], tmp_path: Path, number: int
) -> None:
    directory, config = small
    random = np.random.default_rng()
    tokens = random.integers(0, SMALL_VOCABULARY, 12).tolist()
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=2))
    runner.unload_adapter(runner.load_adapter(models.write_adapter(config, tmp_path / "a", random, 2)))
    runner.step([SequenceStep(0, 0, tokens[:6])])
    with pytest.raises(ValueError, match=f"adapter {number} is not loaded"):
        runner.step([SequenceStep(0, 0, tokens[6:]), SequenceStep(1, 0, [1], adapter=number)])
    rest = runner.step([SequenceStep(0, 6, tokens[6:])])
    other = runner_class(directory, EngineLimits(2, CONTEXT, 16))
    other.step([SequenceStep(0, 0, tokens[:6])])
    np.testing.assert_array_equal(rest, other.step([SequenceStep(0, 6, tokens[6:])]))


def test_a_number_that_is_used_again_means_the_new_adapter_alone(
    runner_class: type[AnyRunner], small: tuple[Path, ModelConfig], tmp_path: Path
) -> None:
    directory, config = small
    random = np.random.default_rng()
    whole = models.write_adapter(config, tmp_path / "whole", random, 4)
    part = models.write_adapter(config, tmp_path / "part", random, 2, share=0.2)
    tokens = random.integers(0, SMALL_VOCABULARY, 12).tolist()
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=1))
    runner.unload_adapter(runner.load_adapter(whole))
    again = runner.step([SequenceStep(0, 0, tokens, adapter=runner.load_adapter(part))])
    fresh = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=1))
    np.testing.assert_array_equal(again, fresh.step([SequenceStep(1, 0, tokens, adapter=fresh.load_adapter(part))]))


def test_an_adapter_that_does_not_fit_leaves_its_number_free(
    runner_class: type[AnyRunner], small: tuple[Path, ModelConfig], tmp_path: Path
) -> None:
    directory, config = small
    random = np.random.default_rng()
    wide = models.write_adapter(config.model_copy(update={"hidden_size": 32}), tmp_path / "wide", random, 2)
    fits = models.write_adapter(config, tmp_path / "fits", random, 2)
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=1, adapter_rank=2))
    with pytest.raises(UserError, match="use the model that it was trained on"):
        runner.load_adapter(wide)
    with pytest.raises(UserError, match="rank 3, more than 2"):
        runner.load_adapter(models.write_adapter(config, tmp_path / "deep", random, 3))
    assert runner.load_adapter(fits) == 1
