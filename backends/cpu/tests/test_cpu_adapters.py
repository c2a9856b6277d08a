"""Both CPU runners with LoRA adapters compute what PEFT computes, and what the model with merged weights does."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.adapters.projections import projection_places
from fulmen_core.errors import UserError
from fulmen_core.formats.huggingface import read
from fulmen_core.formats.writing import write_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.adapters import merged, write_adapter
from fulmen_testing.models import save_random_model

from . import adapter_models as models
from .mixed_steps import AnyRunner, drive
from .test_cpu_runner import CONTEXT, configs, reference_logits
from .test_cpu_runner import VOCABULARY as SMALL_VOCABULARY

#: Of float32 against float64 in a random model that amplifies it: of every position, 1.2e-4 was the most in thousands.
ROUNDING = 5e-4


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
    played = drive(
        runner_class(directory, limits), np.random.default_rng(seed), 12, models.VOCABULARY, made.folders, every=True
    )
    assert {sequence.adapter for sequence in played} == {None, *made.folders}
    reference = merged(directory, None)
    references = {name: merged(directory, folder) for name, folder in made.folders.items()}
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
        directory = save_random_model(config, seed, root)
        folders = {
            name: write_adapter(config, root / name, random, rank, share=share)
            for name, rank, share in (("a", 3, 1.0), ("b", 16, 0.5), ("c", 33, 0.3))
        }
        limits = EngineLimits(shape[0], CONTEXT, shape[1], adapters=2)
        played = drive(runner_class(directory, limits), random, 10, SMALL_VOCABULARY, folders, every=True)
        for name in (None, *folders):
            reference = merged(directory, folders.get(name or ""))
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
    return save_random_model(config, 1, tmp_path / "model"), config


def test_numbers_are_the_lowest_free_ones_and_only_as_many_as_the_limits_say(
    runner_class: type[AnyRunner], small: tuple[Path, ModelConfig], tmp_path: Path
) -> None:
    directory, config = small
    adapter = write_adapter(config, tmp_path / "a", np.random.default_rng(), 2)
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
    runner.unload_adapter(runner.load_adapter(write_adapter(config, tmp_path / "a", random, 2)))
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
    whole = write_adapter(config, tmp_path / "whole", random, 4)
    part = write_adapter(config, tmp_path / "part", random, 2, share=0.2)
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
    wide = write_adapter(config.model_copy(update={"hidden_size": 32}), tmp_path / "wide", random, 2)
    fits = write_adapter(config, tmp_path / "fits", random, 2)
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 16, adapters=1, adapter_rank=2))
    with pytest.raises(UserError, match="use the model that it was trained on"):
        runner.load_adapter(wide)
    with pytest.raises(UserError, match="rank 3, more than 2"):
        runner.load_adapter(write_adapter(config, tmp_path / "deep", random, 3))
    assert runner.load_adapter(fits) == 1
