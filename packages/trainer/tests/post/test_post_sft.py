"""Fine-tuning: what is trained, how samples weigh, and that a killed run ends where an uninterrupted one does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fulmen_core.errors import PluginError, UserError
from fulmen_core.guard import DocumentVerdict, InputVerdict, OutputStream
from fulmen_core.model.checkpoint import load_model, load_tensors
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer, load_tokenizer
from fulmen_trainer.conversations import encode_instruction, read_instructions
from fulmen_trainer.optimizers import OptimizerConfig
from fulmen_trainer.packing_samples import Sample
from fulmen_trainer.post_training import ObjectiveModule, RowTensors
from fulmen_trainer.sft import FineTuning, SFTConfig, fine_tune

FAST = SFTConfig(
    total_steps=6,
    batch_size=8,
    sequence_length=64,
    rows_per_micro_batch=2,
    warmup_steps=1,
    optimizer=OptimizerConfig(lr=3e-3),
    checkpoint_every=2,
    log_every=1,
)


def gradients(model: Transformer, samples: Sequence[Sample], **changes: int) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step over all samples."""
    config = FAST.model_copy(update={"batch_size": len(samples), **changes})
    objective = FineTuning(model, samples, config)
    model.zero_grad()
    total = 0.0
    for packed in objective.rows(0):
        rows = RowTensors.of(packed, torch.device("cpu"))
        hidden = model(rows.tokens_BT, positions_BT=rows.positions_BT, segments_BT=rows.segments_BT).hidden_BTD
        loss, _ = objective.loss(hidden, rows, 0)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    return total, {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.sampled_from([40, 64, 200]), st.integers(0, 99))
def test_neither_packing_nor_splitting_changes_the_gradient(
    nano: ModelConfig, tokenizer: Tokenizer, task_items: list[Mapping[str, Any]], rows: int, width: int, seed: int
) -> None:
    model = Transformer(nano).double()
    model.set_experts_implementation("dense")  # grouped products know no float64
    samples = [encode_instruction(tokenizer, item["messages"], "") for item in task_items[:8]]
    reference_loss, reference = gradients(model, samples, rows_per_micro_batch=100, sequence_length=400)
    loss, ours = gradients(model, samples, rows_per_micro_batch=rows, sequence_length=width, seed=seed)
    assert loss == pytest.approx(reference_loss, rel=1e-6)
    for name, gradient in reference.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-9, msg=name)


def test_the_loss_is_the_mean_over_samples_of_the_mean_over_their_answer_tokens(
    nano: ModelConfig, tokenizer: Tokenizer, task_items: list[Mapping[str, Any]]
) -> None:
    model = Transformer(nano)
    per_sample = []
    for item in task_items[:10]:
        token_ids, trained = tokenizer.encode_chat_masked(item["messages"])
        log_probs = model.logits(model(torch.tensor([token_ids])).hidden_BTD)[0].log_softmax(-1)
        answer = [place for place, flag in enumerate(trained) if flag]
        assert token_ids[answer[-1]] == tokenizer.im_end_id, "the end of the turn is trained"
        per_sample.append(-np.mean([log_probs[place - 1, token_ids[place]].item() for place in answer]))
    samples = [encode_instruction(tokenizer, item["messages"], "") for item in task_items[:10]]
    loss, _ = gradients(model, samples)
    assert loss == pytest.approx(float(np.mean(per_sample)), rel=1e-4)


def test_balance_losses_are_trained_with_it(world: Any) -> None:
    def router_after_a_step(alpha: float) -> Tensor:
        torch.manual_seed(0)
        balance = BalanceConfig(expert_groups=2, partitions=2, partition_alpha=alpha)
        model = Transformer(world.config.model_copy(update={"balance": balance}))
        samples = [encode_instruction(world.tokenizer, item["messages"], "") for item in world.items]
        program = world.registry.backend("plain").prepare_training(model, None)
        module = ObjectiveModule(model, model, program, FineTuning(model, samples, FAST), FAST)
        metrics = module.train_step(0)
        assert (metrics["balance_loss"] > 0.01) == (alpha > 0.1)
        return model.state_dict()["blocks.0.ffn.router.weight"]

    assert not torch.equal(router_after_a_step(1e-3), router_after_a_step(1.0))


def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(world: Any, dying: Callable[[str, int], Registry]) -> None:
    data = world.write("sft.jsonl", world.items)
    whole, cut = world.work("whole"), world.work("cut")
    fine_tune(world.model, data, config=FAST, registry=world.registry, work=whole)
    with pytest.raises(PluginError, match="killed"):
        fine_tune(world.model, data, config=FAST, registry=dying("sft", 5), work=cut)
    assert not (cut / "model.safetensors").exists()
    result = fine_tune(world.model, data, config=FAST, registry=world.registry, work=cut)
    expected, ours = load_tensors(whole), load_tensors(cut)
    assert all(torch.equal(expected[name], ours[name]) for name in expected)
    assert result["samples"] == len(world.items)
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_result_is_a_model_directory_that_has_learned(world: Any) -> None:
    data = world.write("sft.jsonl", world.items[:4])
    work = world.work("out")
    config = FAST.model_copy(update={"total_steps": 24, "log_every": 4, "optimizer": OptimizerConfig(lr=1e-2)})
    fine_tune(world.model, data, config=config, registry=world.registry, work=work)
    losses = [json.loads(line)["loss"] for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]
    assert load_model(work).config == world.config
    assert load_tokenizer(work).fingerprint == world.tokenizer.fingerprint


# -- what is read ------------------------------------------------------------------------------------------------------


def conversation(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(turns)
    return {"messages": [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"messages": [{"role": "user", "content": "hi"}]}', "line 2: add one|no assistant message"),
        ('{"messages": [', "broken JSON"),
        ("[1, 2]", "a JSON list"),
        ('{"messages": []}', "no list of messages"),
        ('{"messages": [{"role": "robot", "content": "hi"}]}', "message 1 has no valid role"),
        ('{"text": "hi"}', "no list of messages"),
    ],
)
def test_a_bad_line_is_named(world: Any, text: str, message: str) -> None:
    path = world.root / "bad.jsonl"
    path.write_text(json.dumps(conversation("a", "b")) + "\n" + text + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read_instructions(path, world.tokenizer, 64)
    assert "line 2" in str(caught.value)


def test_invalid_utf8_a_missing_file_and_an_empty_one_are_told(world: Any) -> None:
    (world.root / "latin.jsonl").write_bytes(b'{"messages": "\xe9"}\n')
    with pytest.raises(UserError, match=r"UTF-8.*line 1"):
        read_instructions(world.root / "latin.jsonl", world.tokenizer, 64)
    with pytest.raises(UserError, match="no such data file"):
        read_instructions(world.root / "none.jsonl", world.tokenizer, 64)
    with pytest.raises(UserError, match="there is no sample"):
        read_instructions(world.write("empty.jsonl", []), world.tokenizer, 64)


def test_long_samples_are_dropped_or_cut_and_counted(world: Any) -> None:
    lines = [conversation("hi", "ok"), conversation("hi", "x" * 99), conversation("y" * 99, "ok")]
    path = world.write("long.jsonl", lines)
    dropped = read_instructions(path, world.tokenizer, 40, too_long="drop")
    assert dropped.counts() == {"samples": 1, "truncated": 0, "dropped_long": 2, "dropped_unsafe": 0}
    cut = read_instructions(path, world.tokenizer, 40, too_long="truncate")
    assert cut.counts() == {"samples": 2, "truncated": 1, "dropped_long": 1, "dropped_unsafe": 0}
    assert max(map(len, cut.samples)) == 40


class WordGuard:
    """Judges answers that contain a word."""

    name, policy_version = "word", "1"

    def reward_penalty(self, prompt: str, answer: str) -> float:
        return 1.0 if "bad" in answer else 0.0

    def judge_document(self, text: str) -> DocumentVerdict:
        return DocumentVerdict("keep", text)

    def judge_input(self, messages: Sequence[Mapping[str, str]]) -> InputVerdict:
        return InputVerdict("allow", tuple(messages))

    def open_output(self, messages: Sequence[Mapping[str, str]]) -> OutputStream:
        raise AssertionError("training opens no output stream")


def test_samples_with_a_harmful_answer_are_dropped_and_counted(world: Any) -> None:
    lines = [
        conversation("bad question", "good"),
        conversation("hi", "a bad answer"),
        conversation("a", "bad", "b", "c"),
    ]
    path = world.write("unsafe.jsonl", lines)
    result = read_instructions(path, world.tokenizer, 64, guard=WordGuard(), max_penalty=0.5)
    assert result.counts() == {"samples": 1, "truncated": 0, "dropped_long": 0, "dropped_unsafe": 2}


def test_a_tokenizer_of_another_model_is_refused(world: Any) -> None:
    ByteLevelTokenizer.train(["other text"], 512).save(world.model)
    with pytest.raises(UserError, match="512 tokens"):
        fine_tune(world.model, Path("x"), config=FAST, registry=world.registry, work=world.work("w"))


def test_rows_longer_than_the_context_are_refused(world: Any) -> None:
    config = FAST.model_copy(update={"sequence_length": 4096})
    with pytest.raises(UserError, match="context of 64"):
        fine_tune(world.model, Path("x"), config=config, registry=world.registry, work=world.work("w"))
