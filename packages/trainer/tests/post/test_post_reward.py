"""The reward model: it learns to prefer, scores without regard to company, and goes on from phase to phase."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fulmen_core.errors import CorruptArtefact, PluginError, UserError
from fulmen_core.model.checkpoint import load_tensors
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_trainer.conversations import answer_tokens
from fulmen_trainer.optimizers import OptimizerConfig
from fulmen_trainer.preferences import Pair, write_pairs
from fulmen_trainer.reward import RewardConfig, RewardModel, guarded_rewards, split_pairs, train_reward

FAST = RewardConfig(
    total_steps=4,
    batch_size=8,
    sequence_length=64,
    rows_per_micro_batch=4,
    warmup_steps=1,
    optimizer=OptimizerConfig(lr=1e-2),
    checkpoint_every=2,
    log_every=1,
)


def pairs_about_a_mark(count: int) -> list[Pair]:
    """The answer that ends with an exclamation mark is the better one."""
    words = np.random.default_rng().integers(100, 999, count).tolist()
    return [Pair(({"role": "user", "content": f"say {word}"},), f"{word}!", f"{word}?", "mark") for word in words]


def test_it_learns_a_preference_and_keeps_it_on_pairs_it_never_saw(world: Any) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, pairs_about_a_mark(60))
    config = FAST.model_copy(update={"total_steps": 20, "log_every": 5})
    result = train_reward(world.model, data, config=config, registry=world.registry, work=world.work("rm"))
    assert result["heldout_pairs"] == 6
    assert result["heldout_accuracy"] == 1.0
    assert result["loss"] < 0.3 < np.log(2)


def test_a_score_is_the_head_on_the_last_token_whatever_it_is_packed_with(world: Any) -> None:
    model = RewardModel(Transformer(world.config), world.tokenizer)
    answered = [(pair.prompt, pair.chosen) for pair in pairs_about_a_mark(7)]
    expected = []
    for prompt, answer in answered:
        token_ids, _ = answer_tokens(world.tokenizer, prompt, answer)
        expected.append(model.head(model.trunk(torch.tensor([token_ids])).hidden_BTD[0, -1]).item())
    np.testing.assert_allclose(model.score(answered), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.score(answered, sequence_length=30, rows=1), expected, rtol=1e-4, atol=1e-5)
    assert model.score([]).shape == (0,)


def test_a_prompt_longer_than_the_context_is_scored_by_its_end(world: Any) -> None:
    model = RewardModel(Transformer(world.config), world.tokenizer)
    long = ({"role": "user", "content": "z" * 500},)
    assert np.isfinite(model.score([(long, "fine")])).all()


def test_the_second_phase_starts_from_the_head_of_the_first(world: Any) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, pairs_about_a_mark(40))
    pmp, hfft = world.work("pmp"), world.work("hfft")
    config = FAST.model_copy(update={"total_steps": 12})
    train_reward(world.model, data, config=config, registry=world.registry, work=pmp)
    train_reward(pmp, data, config=FAST, registry=world.registry, work=hfft)
    first_step = json.loads((hfft / "metrics.jsonl").read_text().splitlines()[0])
    assert first_step["accuracy"] > 0.8
    scores = [
        RewardModel.load(folder).score([(({"role": "user", "content": "say 1"},), "1!")]) for folder in (pmp, hfft)
    ]
    assert scores[0] != scores[1]


def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(world: Any, dying: Callable[[str, int], Registry]) -> None:
    data = world.root / "pairs.jsonl"
    write_pairs(data, pairs_about_a_mark(20))
    whole, cut = world.work("whole"), world.work("cut")
    train_reward(world.model, data, config=FAST, registry=world.registry, work=whole)
    with pytest.raises(PluginError, match="killed"):
        train_reward(world.model, data, config=FAST, registry=dying("reward", 3), work=cut)
    train_reward(world.model, data, config=FAST, registry=world.registry, work=cut)
    for expected, ours in (
        (load_tensors(whole), load_tensors(cut)),
        (load_file(whole / "reward_head.safetensors"), load_file(cut / "reward_head.safetensors")),
    ):
        assert expected.keys() == ours.keys()
        assert all(torch.equal(expected[name], ours[name]) for name in expected)


def test_held_out_pairs_are_never_trained_on_and_one_pair_always_is() -> None:
    train, heldout = split_pairs(50, 0.2, 5)
    assert sorted(train + heldout) == list(range(50))
    assert len(heldout) == 10
    assert split_pairs(1, 0.9, 0) == ([0], [])


def test_the_guard_lowers_the_reward_of_what_it_would_not_serve() -> None:
    class Guard:
        def reward_penalty(self, prompt: str, answer: str) -> float:
            return float("harm" in answer) * 0.5

    prompt = ({"role": "user", "content": "q"},)
    shaped = guarded_rewards(np.array([1.0, 1.0]), [(prompt, "harm"), (prompt, "help")], Guard(), 4.0)  # type: ignore[arg-type]
    assert shaped.tolist() == [-1.0, 1.0]


def test_a_plain_model_and_a_damaged_head_are_told(world: Any) -> None:
    with pytest.raises(UserError, match="no reward model"):
        RewardModel.load(world.model)
    work = world.work("rm")
    RewardModel(Transformer(world.config), world.tokenizer).save(work)
    head = work / "reward_head.safetensors"
    head.write_bytes(head.read_bytes()[:-5])
    with pytest.raises(CorruptArtefact, match="reward head"):
        RewardModel.load(work)
