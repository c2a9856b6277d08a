"""Offline generation: answers do not depend on the schedule, and the runner is asked for nothing it cannot hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_core.generation import generate
from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams

VOCABULARY = 50


class HistoryRunner:
    """A whole language model without a network: the logits are a fixed random function of every token before.

    It keeps the tokens of each slot as its cache and refuses any step that breaks the runner's contract.
    """

    cache = CacheSpec((), 0)
    vocab_size = VOCABULARY

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.slots: dict[int, list[int]] = {}
        self.steps: list[list[int]] = []

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        assert batch
        assert len({s.slot for s in batch}) == len(batch)
        assert sum(len(s.token_ids) for s in batch) <= self.limits.max_step_tokens
        self.steps.append([len(s.token_ids) for s in batch])
        return np.stack([self._extend(s) for s in batch])

    def _extend(self, step: SequenceStep) -> NDArray[np.float32]:
        assert 0 <= step.slot < self.limits.max_sequences
        assert (step.start == 0) == (step.slot not in self.slots), "a slot begins once and is released once"
        history = self.slots.setdefault(step.slot, [])
        assert step.start == len(history)
        history.extend(step.token_ids)
        assert 0 < len(history) <= self.limits.max_context
        return np.random.default_rng(history).normal(scale=2, size=VOCABULARY).astype(np.float32)

    def release(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def close(self) -> None:
        self.slots.clear()


def alone(prompt: Sequence[int], params: SamplingParams, stop_ids: Sequence[int], limits: EngineLimits) -> list[int]:
    """The greedy answer, token by token, without batching or slots."""
    tokens = list(prompt)
    answer: list[int] = []
    while len(answer) < params.max_tokens and len(tokens) < limits.max_context:
        logits = np.random.default_rng(tokens).normal(scale=2, size=VOCABULARY).astype(np.float32)
        answer.append(int(logits.argmax()))
        tokens.append(answer[-1])
        if answer[-1] in stop_ids:
            break
    return answer


limits_strategy = st.builds(
    EngineLimits, max_sequences=st.integers(1, 5), max_context=st.integers(12, 40), max_step_tokens=st.integers(1, 16)
)
prompts_strategy = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=11), max_size=9)


@settings(max_examples=50, deadline=None)
@given(limits_strategy, prompts_strategy, st.integers(1, 12), st.sets(st.integers(0, VOCABULARY - 1), max_size=4))
def test_batched_answers_equal_those_made_one_by_one(
    limits: EngineLimits, prompts: list[list[int]], max_tokens: int, stop_ids: set[int]
) -> None:
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    runner = HistoryRunner(limits)
    answers = generate(runner, prompts, params, stop_ids)
    assert answers == [alone(prompt, params, sorted(stop_ids), limits) for prompt in prompts]
    assert not runner.slots


@settings(max_examples=30, deadline=None)
@given(limits_strategy, limits_strategy, prompts_strategy, st.integers(0, 2**31))
def test_seeded_answers_do_not_depend_on_the_schedule(
    one: EngineLimits, other: EngineLimits, prompts: list[list[int]], seed: int
) -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=1 + seed % 6, seed=seed)
    room = 11 + params.max_tokens
    answers = [
        generate(HistoryRunner(EngineLimits(limits.max_sequences, room, limits.max_step_tokens)), prompts, params)
        for limits in (one, other)
    ]
    assert answers[0] == answers[1]


def test_equal_prompts_get_different_samples_from_one_seed() -> None:
    params = SamplingParams(temperature=3.0, max_tokens=8, seed=1)
    answers = generate(HistoryRunner(EngineLimits()), [[1, 2, 3]] * 6, params)
    assert len({tuple(answer) for answer in answers}) == 6


def test_long_prompts_do_not_hold_up_those_that_decode() -> None:
    runner = HistoryRunner(EngineLimits(max_sequences=2, max_context=200, max_step_tokens=8))
    generate(runner, [[1], [2] * 80], SamplingParams(temperature=0, max_tokens=12))
    # the short prompt needs 12 steps for its 12 tokens; the long one advances 7 or 8 tokens beside it
    assert [step[0] for step in runner.steps[:12]] == [1] * 12
    assert all(sum(step) == 8 for step in runner.steps[:10])


def test_slots_are_given_back_after_an_error() -> None:
    class Failing(HistoryRunner):
        def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
            logits = super().step(batch)
            return logits * np.float32("nan") if len(self.steps) == 3 else logits

    runner = Failing(EngineLimits())
    with pytest.raises(UserError, match="not finite"):
        generate(runner, [[1], [2]], SamplingParams())
    assert not runner.slots


def test_no_prompts_give_no_answers() -> None:
    assert generate(HistoryRunner(EngineLimits()), [], SamplingParams()) == []


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([], "no token"),
        ([1] * 30, "30 tokens leave no room"),
        ([1, VOCABULARY], "outside the vocabulary"),
        ([-1], "outside"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_named(prompt: list[int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        generate(HistoryRunner(EngineLimits(max_context=30)), [[1], prompt], SamplingParams())
    assert "prompt 1" in str(raised.value)
