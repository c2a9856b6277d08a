"""Pairs: how answers become pairs, what their file may hold, and that a nano model's own answers do become some."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.model.transformer import Transformer
from fulmen_core.sampling import SamplingParams
from fulmen_trainer.answering import answer_prompts, open_runner, sample_answers
from fulmen_trainer.conversations import answer_tokens, item_prompt
from fulmen_trainer.evaluation import exact_match, verify
from fulmen_trainer.pair_building import Judge, PairConfig, build_pairs
from fulmen_trainer.preferences import (
    Pair,
    corrupted,
    corrupted_pairs,
    encode_pairs,
    read_pairs,
    select_pair,
    write_pairs,
)
from fulmen_trainer.reward import RewardModel

rewards = st.lists(st.floats(-5, 5), min_size=1, max_size=16)


@settings(max_examples=50, deadline=None)
@given(rewards, st.floats(0, 3))
def test_a_pair_is_best_against_worst_with_a_sufficient_gap_or_nothing(values: list[float], min_gap: float) -> None:
    answers = [str(index) for index in range(len(values))]
    pair = select_pair(answers, values, min_gap, [True] * len(values))
    gap = max(values) - min(values)
    assert (pair is None) == (gap < min_gap or gap == 0)
    if pair is not None:
        assert (values[pair[0]], values[pair[1]]) == (max(values), min(values))


def test_equal_texts_never_form_a_pair() -> None:
    assert select_pair(["same", "same"], [1.0, 0.0], 0.5, [True, True]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=16))
def test_a_wrong_answer_never_wins(judged: list[tuple[float, bool]]) -> None:
    values, right = [value for value, _ in judged], [flag for _, flag in judged]
    pair = select_pair([str(index) for index in range(len(judged))], values, 0.0, right)
    if pair is not None:
        assert right[pair[0]]
        assert values[pair[0]] == max(value for value, flag in judged if flag)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12), st.integers(0, 2**32 - 1))
def test_a_corrupted_answer_is_another_one(answer: str, seed: int) -> None:
    assert corrupted(answer, np.random.default_rng(seed)) != answer


def test_pairs_survive_their_file(world: Any) -> None:
    pairs = [
        Pair(({"role": "user", "content": "naïve 你好?"},), "yes", "no", "somewhere"),
        *corrupted_pairs(world.items, 3),
    ]
    write_pairs(world.root / "pairs.jsonl", pairs)
    assert read_pairs(world.root / "pairs.jsonl") == pairs


def test_a_prompt_may_be_plain_text(world: Any) -> None:
    path = world.write("pairs.jsonl", [{"prompt": "hi", "chosen": "a", "rejected": "b"}])
    assert read_pairs(path) == [Pair(({"role": "user", "content": "hi"},), "a", "b")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "hi", "chosen": "a"}, "must be strings"),
        ({"prompt": "hi", "chosen": "a", "rejected": "a"}, "both answers are the same"),
        ({"chosen": "a", "rejected": "b"}, "no list of messages"),
    ],
)
def test_a_bad_pair_is_named(world: Any, record: dict[str, Any], message: str) -> None:
    path = world.write("pairs.jsonl", [{"prompt": "hi", "chosen": "a", "rejected": "b"}, record])
    with pytest.raises(UserError, match=message) as caught:
        read_pairs(path)
    assert "line 2" in str(caught.value)


def test_only_the_last_answer_is_scored_whatever_the_prompt_holds(world: Any) -> None:
    prompt = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    token_ids, own = answer_tokens(world.tokenizer, prompt, "four")
    scored = [token for token, flag in zip(token_ids, own, strict=True) if flag]
    assert world.tokenizer.decode(scored, skip_special=False) == "four<|im_end|>"
    assert token_ids[-1] == world.tokenizer.im_end_id


def test_pairs_longer_than_the_context_are_dropped_and_all_of_them_is_an_error(world: Any) -> None:
    short, long = (
        Pair(({"role": "user", "content": "hi"},), "a", "b"),
        Pair(({"role": "user", "content": "hi"},), "a", "b" * 99),
    )
    assert encode_pairs([short, long], world.tokenizer, 40, "x").dropped_long == 1
    with pytest.raises(UserError, match="all 1 pairs"):
        encode_pairs([long], world.tokenizer, 40, "x")


def test_sampling_is_repeatable_differs_between_answers_and_takes_turns_at_the_temperatures(world: Any) -> None:
    prompts = [item_prompt(item) for item in world.items[:2]]
    with open_runner(world.registry, world.model) as runner:

        def draw(*temperatures: float) -> list[list[str]]:
            drawn = sample_answers(
                runner, world.tokenizer, prompts, answers=5, temperatures=temperatures, max_tokens=3, seed=7
            )
            return [[answer.text for answer in answers] for answers in drawn]

        first = draw(1.0, 0.0)
        assert first == draw(1.0, 0.0)
        greedy = answer_prompts(runner, world.tokenizer, prompts, SamplingParams(temperature=0, max_tokens=3))
    for answers, best in zip(first, greedy, strict=True):
        assert len(answers) == 5
        assert len(set(answers[:3])) > 1, "answers at temperature 1 differ"
        assert answers[3:] == [best.text] * 2, "two of five at temperature 0"


def test_a_model_that_is_judged_by_the_verifier_yields_right_against_wrong(world: Any) -> None:
    config = PairConfig(answers=3, max_tokens=8, min_gap=0.5, known_answer=True, temperatures=(1.0,))
    with open_runner(world.registry, world.model) as runner:
        pairs, counts = build_pairs(runner, world.tokenizer, world.items[:4], Judge(world.registry, config), seed=1)
    assert counts["prompts"] == 4
    assert counts["pairs"] == len(pairs) == 4 - counts["no_pair"]
    by_prompt = {item["messages"][0]["content"]: item["answer"] for item in world.items}
    for pair in pairs:
        assert pair.chosen == by_prompt[pair.prompt[0]["content"]]
        assert pair.rejected != pair.chosen
    json.dumps(counts)


def test_without_reward_model_and_verifier_nothing_can_be_judged(world: Any) -> None:
    judge = Judge(world.registry, PairConfig(verifier_weight=0))
    with pytest.raises(UserError, match="nothing judges"):
        judge.judge(world.items[:1], ["a"])


def test_an_item_without_a_verifier_is_judged_by_the_reward_model_alone(world: Any) -> None:
    reward_model = RewardModel(Transformer(world.config), world.tokenizer)
    judge = Judge(world.registry, PairConfig(verifier_weight=10.0), reward_model)
    free = {key: value for key, value in world.items[0].items() if key != "verifier"}
    verdict = judge.judge([world.items[0], world.items[0], free], [world.items[0]["answer"], "wrong", "wrong"])
    assert verdict.right.tolist() == [True, False, True]
    assert verdict.rewards[1] == pytest.approx(verdict.rewards[2], rel=1e-3)
    assert verdict.rewards[0] > verdict.rewards[1] + 5


def test_an_untrained_model_matches_nothing_and_the_report_says_what_it_answered(world: Any) -> None:
    with open_runner(world.registry, world.model) as runner:
        result = exact_match(runner, world.tokenizer, world.items[:6], world.registry, max_tokens=4)
    assert result["exact_match"] == 0.0
    assert {task: part["items"] for task, part in result["by_task"].items()} == {"addition": 3, "reverse": 3}
    assert result["samples"][0].keys() == {"prompt", "answer", "expected", "correct", "task"}


def test_nothing_to_evaluate_and_an_item_without_a_verifier_are_told(world: Any) -> None:
    with open_runner(world.registry, world.model) as runner, pytest.raises(UserError, match="no item"):
        exact_match(runner, world.tokenizer, [], world.registry)
    item = {key: value for key, value in world.items[0].items() if key != "verifier"}
    with pytest.raises(UserError, match="names no verifier"):
        verify(world.registry, item, "1")
