"""DPO: a cached reference changes nothing, every round is repeatable, and a killed run ends where a whole one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fulmen_core.errors import PluginError, UserError
from fulmen_core.model.checkpoint import load_tensors
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import Tokenizer
from fulmen_trainer.dpo import DirectPreference, DPOConfig, OnlineInputs, align
from fulmen_trainer.log_probs import sample_log_probs, token_log_probs
from fulmen_trainer.optimizers import OptimizerConfig
from fulmen_trainer.packing_samples import Sample
from fulmen_trainer.pair_building import PairConfig
from fulmen_trainer.post_training import RowTensors
from fulmen_trainer.preferences import corrupted_pairs, encode_pairs, write_pairs
from fulmen_trainer.reference_log_probs import answer_log_probs, cached_reference

FAST = DPOConfig(
    total_steps=4,
    batch_size=4,
    sequence_length=64,
    rows_per_micro_batch=2,
    warmup_steps=1,
    optimizer=OptimizerConfig(lr=3e-3),
    checkpoint_every=2,
    log_every=1,
    online_rounds=0,
    pairs=PairConfig(answers=3, max_tokens=6, min_gap=0.5, known_answer=True, temperatures=(1.0,)),
)


class Plain:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def autocast(self) -> Any:
        return torch.autocast("cpu", enabled=False)


def test_the_cached_reference_gives_the_gradient_of_a_loaded_one(
    nano: ModelConfig, tokenizer: Tokenizer, task_items: list[Any]
) -> None:
    policy, reference = Transformer(nano).double(), Transformer(nano).double()
    for model in (policy, reference):
        model.set_experts_implementation("dense")  # grouped products know no float64
    pairs = encode_pairs(corrupted_pairs(task_items[:6], 0), tokenizer, 64, "")
    samples = [Sample.next_token(*answer) for answer in pairs.answers]
    config = FAST.model_copy(update={"batch_size": len(pairs), "nll_weight": 0.0, "beta": 0.7})
    cached_P2 = answer_log_probs(reference, Plain(reference), samples, config).view(-1, 2)  # type: ignore[arg-type]

    objective = DirectPreference(policy, pairs, cached_P2, config)
    for packed in objective.rows(0):
        rows = RowTensors.of(packed, torch.device("cpu"))
        hidden = policy(rows.tokens_BT, positions_BT=rows.positions_BT, segments_BT=rows.segments_BT).hidden_BTD
        torch.autograd.backward(objective.loss(hidden, rows, 0)[0])
    ours = {name: parameter.grad for name, parameter in policy.named_parameters()}

    policy.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for chosen, rejected in zip(samples[::2], samples[1::2], strict=True):  # one by one, both models, no packing
        margins = [log_prob(policy, side) - log_prob(reference, side).detach() for side in (chosen, rejected)]
        total = total - F.logsigmoid(0.7 * (margins[0] - margins[1])) / len(pairs)
    torch.autograd.backward(total)
    for name, parameter in policy.named_parameters():
        if parameter.grad is None:
            assert ours[name] is None or not ours[name].any()
        else:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-9, atol=1e-13, msg=name)


def log_prob(model: Transformer, sample: Sample) -> Tensor:
    hidden = model(torch.from_numpy(sample.inputs)[None]).hidden_BTD
    scored = torch.from_numpy(sample.scored).nonzero().squeeze(-1)
    targets = torch.from_numpy(sample.targets[sample.scored])
    return sample_log_probs(
        token_log_probs(hidden, scored, targets, model.logits), torch.zeros(len(targets), dtype=torch.int64), 1
    )[0]


def test_the_reference_is_computed_once_and_again_only_if_the_cache_is_of_something_else(world: Any) -> None:
    cache = world.root / "reference.safetensors"
    pairs = encode_pairs(corrupted_pairs(world.items[:5], 0), world.tokenizer, 64, "")
    first = cached_reference(world.model, pairs, FAST, world.registry, cache)
    assert first.shape == (5, 2)
    written = cache.stat().st_mtime_ns
    assert torch.equal(cached_reference(world.model, pairs, FAST, world.registry, cache), first)
    assert cache.stat().st_mtime_ns == written
    cache.write_bytes(cache.read_bytes()[:-9])
    assert torch.equal(cached_reference(world.model, pairs, FAST, world.registry, cache), first)
    others = encode_pairs(corrupted_pairs(world.items[:5], 1), world.tokenizer, 64, "")
    assert not torch.equal(cached_reference(world.model, others, FAST, world.registry, cache), first)


def test_training_widens_the_margin_from_zero(world: Any) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, corrupted_pairs(world.items[:6], 0))
    work = world.work("dpo")
    config = FAST.model_copy(update={"total_steps": 15, "optimizer": OptimizerConfig(lr=1e-2)})
    align(world.model, data, config=config, registry=world.registry, work=work)
    records = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert abs(records[0]["reward_margin"]) < 1e-4, "the policy starts as its reference"
    assert records[-1]["reward_margin"] > 0.1
    assert records[-1]["accuracy"] > 0.9


def test_a_run_killed_offline_and_again_online_ends_with_the_same_weights_bit_for_bit(
    world: Any, tuned: Path, dying: Callable[[str, int], Registry]
) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, corrupted_pairs(world.items[:8], 0))
    config = FAST.model_copy(update={"online_rounds": 1, "online_prompts": 4})
    online = OnlineInputs(world.items)
    whole, cut = world.work("whole"), world.work("cut")
    result = align(tuned, data, config=config, registry=world.registry, work=whole, online=online)
    assert [iteration["name"] for iteration in result["iterations"]] == ["offline", "round-1"]
    assert result["iterations"][1]["pairs"] == result["iterations"][1]["sampled_pairs"] > 0
    for stage in ("dpo offline", "dpo round-1"):
        with pytest.raises(PluginError, match="killed"):
            align(tuned, data, config=config, registry=dying(stage, 3), work=cut, online=online)
    again = align(tuned, data, config=config, registry=world.registry, work=cut, online=online)
    expected, ours = load_tensors(whole), load_tensors(cut)
    assert all(torch.equal(expected[name], ours[name]) for name in expected)
    assert (whole / "pairs-round-1.jsonl").read_text() == (cut / "pairs-round-1.jsonl").read_text()
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 8
    assert again["iterations"][1]["sampled_mean_reward"] == result["iterations"][1]["sampled_mean_reward"]
    assert not torch.equal(load_tensors(tuned)["embed.weight"], ours["embed.weight"])


def test_online_rounds_need_prompts_and_prompts_must_yield_pairs(world: Any) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, corrupted_pairs(world.items[:4], 0))
    config = FAST.model_copy(update={"online_rounds": 1, "total_steps": 1})
    with pytest.raises(UserError, match="need prompts"):
        align(world.model, data, config=config, registry=world.registry, work=world.work("a"))
    config = config.model_copy(update={"pairs": PairConfig(answers=2, max_tokens=3, min_gap=15, known_answer=True)})
    with pytest.raises(UserError, match="gave a pair"):
        align(
            world.model,
            data,
            config=config,
            registry=world.registry,
            work=world.work("b"),
            online=OnlineInputs(world.items[:2]),
        )
