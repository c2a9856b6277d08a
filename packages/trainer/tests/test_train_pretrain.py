"""Three-stage pre-training: normalisation, mixtures, the fork point, and bit-exact resuming at every boundary."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_core.backend import TrainPlan
from fulmen_core.errors import UserError
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.recipes import load_recipe
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import Tokenizer, load_tokenizer
from fulmen_trainer.data.shards import ShardSet
from fulmen_trainer.display import LineDisplay
from fulmen_trainer.loop import checkpoints
from fulmen_trainer.pretrain import PretrainConfig, PretrainModule, pretrain
from fulmen_trainer.schedules import three_stage

Settings = Callable[..., dict[str, Any]]
NO_BALANCE = {"switch_alpha": 0.0, "group_alpha": 0.0, "partition_alpha": 0.0, "expert_groups": 2, "partitions": 2}


@pytest.fixture
def make_module(
    pretrain_settings: Settings,
    shard_sets: dict[str, ShardSet],
    training_tokenizer: Tokenizer,
    registry: Registry,
    work: Path,
) -> Callable[..., PretrainModule]:
    def make(**changes: Any) -> PretrainModule:
        config = PretrainConfig.model_validate(pretrain_settings(**changes))
        torch.manual_seed(config.seed)
        model = Transformer(config.resolve_model(training_tokenizer))
        program = registry.backend("cpu").prepare_training(model, TrainPlan(config.dtype, experts=config.experts))
        return PretrainModule(config, model, program, shard_sets, work)

    return make


@pytest.fixture
def train(
    pretrain_settings: Settings, shard_sets: dict[str, ShardSet], training_tokenizer: Tokenizer, registry: Registry
) -> Callable[..., dict[str, Any]]:
    def run(work: Path, fork: Path | None = None, **changes: Any) -> dict[str, Any]:
        return pretrain(
            PretrainConfig.model_validate(pretrain_settings(**changes)),
            shards=shard_sets,
            tokenizer=training_tokenizer,
            heldout=["class value(token) return index", "self.layer"],
            work=work,
            registry=registry,
            display=LineDisplay(io.StringIO()),
            fork=fork,
        )

    return run


def weights(module: PretrainModule) -> Iterator[torch.Tensor]:
    return iter(parameter.detach() for parameter in module.model.parameters())


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_loss_and_its_gradients_do_not_depend_on_the_split_into_micro_batches(
    make_module: Callable[..., PretrainModule], tiny_model: dict[str, Any], rows: int
) -> None:
    model = tiny_model | {"balance": NO_BALANCE}
    whole, split = make_module(model=model), make_module(model=model, micro_batch_size=rows)
    for step in (0, 13):  # the second batch mixes conversations of very different lengths
        one, other = whole.train_step(step), split.train_step(step)
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_the_loss_is_the_mean_over_the_tokens_that_continue_a_document(
    make_module: Callable[..., PretrainModule],
) -> None:
    module = make_module()
    batch = module.batch(13)
    ids = torch.from_numpy(batch.tokens_BT1)
    output = module.model(
        ids[:, :-1],
        positions_BT=torch.from_numpy(batch.positions_BT1[:, :-1]),
        segments_BT=torch.from_numpy(batch.segments_BT1[:, :-1]),
    )
    losses = torch.nn.functional.cross_entropy(
        module.model.logits(output.hidden_BTD).flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    trained = torch.from_numpy(batch.trained_BT).flatten()
    assert 0 < int(trained.sum()) < trained.numel()
    assert module.train_step(13)["loss"] == pytest.approx(float(losses.detach()[trained].mean()), rel=1e-5)


def test_each_stage_draws_from_its_own_mixture(make_module: Callable[..., PretrainModule]) -> None:
    module = make_module()
    drawn = [{name for name, tokens in module.batch(step).source_tokens.items() if tokens} for step in range(16)]
    assert set().union(*drawn[:8]) == {"web"}
    assert set().union(*drawn[8:12]) == {"web", "code"}
    assert set().union(*drawn[12:]) == {"code", "tasks"}


def test_a_later_stage_goes_on_in_a_source_where_the_earlier_one_stopped(
    make_module: Callable[..., PretrainModule],
) -> None:
    same = {"share": 0.5, "weights": {"web": 1.0}}
    stages = {"initial": same, "middle": {**same, "share": 0.25}, "decay": {**same, "share": 0.25}}
    first_rows = {make_module(stages=stages).batch(step).tokens_BT1[0].tobytes() for step in range(12)}
    assert len(first_rows) == 12


def test_the_learning_rate_follows_the_three_stage_schedule(make_module: Callable[..., PretrainModule]) -> None:
    module = make_module()
    rates = [module.train_step(step)["lr"] for step in (0, 7, 10, 15)]
    shares = (0.5, 0.25, 0.25)
    assert rates == [pytest.approx(3e-3 * three_stage(step, 16, warmup=2, shares=shares)) for step in (0, 7, 10, 15)]


def test_the_expert_load_of_every_layer_is_reported_in_multiples_of_an_even_share(
    make_module: Callable[..., PretrainModule],
) -> None:
    metrics = make_module().train_step(0)
    for layer in range(4):
        loads = [metrics[f"expert_load/{layer}/{expert}"] for expert in range(4)]
        assert sum(loads) == pytest.approx(4.0)
        assert max(loads) <= metrics["load_max"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss(make_module: Callable[..., PretrainModule], optimizer: str) -> None:
    module = make_module(optimizer={"name": optimizer, "lr": 1e-2}, steps=60)
    losses = [module.train_step(step)["loss"] for step in range(30)]
    assert losses[-1] < losses[0] - 1.5


@pytest.mark.parametrize("boundary", [7, 8, 11, 12, 13])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_at_and_around_stage_boundaries_gives_the_same_weights_bit_for_bit(
    make_module: Callable[..., PretrainModule], tmp_path: Path, boundary: int, optimizer: str
) -> None:
    settings: dict[str, Any] = {"optimizer": {"name": optimizer}}
    whole, first, second = (make_module(**settings) for _ in range(3))
    for step in range(16):
        whole.train_step(step)
    for step in range(boundary):
        first.train_step(step)
    first.save(tmp_path)
    second.load(tmp_path)
    for step in range(boundary, 16):
        second.train_step(step)
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(second), strict=True))


@pytest.mark.parametrize("recompute", ["experts", "blocks"])
@pytest.mark.parametrize("experts", ["grouped", "dense"])
def test_recomputation_changes_no_weight(
    make_module: Callable[..., PretrainModule], experts: str, recompute: str
) -> None:
    kept, recomputed = make_module(experts=experts), make_module(experts=experts, recompute=recompute)
    for step in range(3):
        kept.train_step(step)
        recomputed.train_step(step)
    for one, other in zip(weights(kept), weights(recomputed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_run_leaves_a_model_its_tokenizer_and_the_fork_point(
    train: Callable[..., dict[str, Any]], work: Path, training_tokenizer: Tokenizer
) -> None:
    measurements = train(work, evaluate_every=8)
    assert load_model(work).config.vocab_size == training_tokenizer.vocab_size
    assert load_tokenizer(work).fingerprint == training_tokenizer.fingerprint
    assert load_model(work / "fork").config == load_model(work).config
    assert measurements["tokens"] == 16 * 4 * 24
    assert measurements["backend"] == "cpu"
    assert measurements["dtype"] == "float32"
    assert 0 < measurements["heldout_bits_per_byte"] < 20


def test_a_cycle_from_the_fork_point_is_the_fast_decay_stage_of_the_run_that_left_it(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "cycle", fork=tmp_path / "whole" / "fork")
    whole, cycle = load_model(tmp_path / "whole"), load_model(tmp_path / "cycle")
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), cycle.parameters(), strict=True))
    other_mixture = {
        "initial": {"share": 0.5, "weights": {"web": 1.0}},
        "middle": {"share": 0.25, "weights": {"web": 0.5, "code": 0.5}},
        "decay": {"share": 0.25, "weights": {"web": 1.0}},
    }
    train(tmp_path / "other", fork=tmp_path / "whole" / "fork", stages=other_mixture)
    assert not torch.equal(load_model(tmp_path / "other").embed.weight, whole.embed.weight)


def test_divergence_stops_with_a_sentence_and_leaves_the_last_checkpoint_and_finite_weights(
    train: Callable[..., dict[str, Any]], work: Path
) -> None:
    with pytest.raises(UserError, match=r"became (nan|inf) at step"):
        train(work, optimizer={"lr": 1e30, "grad_clip": 0.0}, checkpoint_every=1)
    assert all(math.isfinite(float(p.detach().abs().sum())) for p in _last_checkpoint(work))


def _last_checkpoint(work: Path) -> Iterator[torch.Tensor]:
    from safetensors.torch import load_file

    return iter(load_file(checkpoints(work)[-1] / "model.safetensors").values())


def test_a_recipe_changes_single_keys_of_the_preset_also_inside_its_balance_table(
    pretrain_settings: Settings, training_tokenizer: Tokenizer
) -> None:
    settings = pretrain_settings(preset="small", model={"hidden_size": 64, "balance": {"switch_alpha": 0.5}})
    resolved = PretrainConfig.model_validate(settings).resolve_model(training_tokenizer)
    small = load_preset("small")
    assert resolved.hidden_size == 64
    assert resolved.num_experts == small.num_experts
    assert resolved.balance == small.balance.model_copy(update={"switch_alpha": 0.5})
    assert resolved.vocab_size == training_tokenizer.vocab_size
    assert resolved.pad_token_id == training_tokenizer.pad_id


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": "smal"}, "unknown preset 'smal'"),
        ({"model": {"hiden_size": 32}}, "hiden_size.*hidden_size"),
        ({"model": {"vocab_size": 100}}, "vocab"),
        ({"backend": "abacus"}, "abacus"),
        ({"dtype": "float16"}, "does not train in float16"),
        (
            {
                "stages": {
                    "initial": {"share": 0.5, "weights": {"wep": 1.0}},
                    "middle": {"share": 0.25, "weights": {"web": 1.0}},
                    "decay": {"share": 0.25, "weights": {"web": 1.0}},
                }
            },
            "'wep'",
        ),
    ],
    ids=["preset", "model key", "vocabulary", "backend", "dtype", "source"],
)
def test_a_setting_that_does_not_fit_is_one_sentence(
    train: Callable[..., dict[str, Any]], work: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(work, **changes)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stepps=3", "stepps.*steps"),
        ("stages.decay.share=0.3", "sum to 1"),
        ("micro_batch_size=3", "not a multiple of micro_batch_size"),
        ("floor=0.2", "floor"),
    ],
)
def test_a_recipe_that_does_not_add_up_is_refused(override: str, sentence: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[stages.initial]\nshare = 0.5\nweights = {web = 1.0}\n"
        "[stages.middle]\nshare = 0.25\nweights = {web = 1.0}\n"
        "[stages.decay]\nshare = 0.25\nweights = {web = 1.0}\n"
    )
    with pytest.raises(UserError, match=sentence):
        load_recipe(PretrainConfig, recipe, [override])


@pytest.mark.gpu
def test_a_run_on_the_gpu_learns_as_on_the_cpu_and_leaves_a_model_that_loads(
    train: Callable[..., dict[str, Any]], registry: Registry, tmp_path: Path
) -> None:
    (record,) = [one for one in registry.backend_records() if one.name == "cuda"] or [None]
    if record is None or record.state != "active":
        reason = "the cuda backend is not installed" if record is None else record.reason
        if "cuda" in os.environ.get("FULMEN_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    on_cpu = train(tmp_path / "cpu", optimizer={"name": "muon", "lr": 3e-3})
    on_gpu = train(tmp_path / "gpu", optimizer={"name": "muon", "lr": 3e-3}, backend="cuda")
    assert on_gpu["device"].startswith("cuda")
    assert on_gpu["train_loss"] == pytest.approx(on_cpu["train_loss"], rel=0.02)
    assert on_gpu["heldout_bits_per_byte"] == pytest.approx(on_cpu["heldout_bits_per_byte"], rel=0.02)
    load_model(tmp_path / "gpu")
