"""How good a model's answers are: exact match by the items' own verifiers, and the mean reward under a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fulmen_core.errors import UserError
from fulmen_core.sampling import SamplingParams
from fulmen_trainer.answering import answer_prompts
from fulmen_trainer.conversations import item_answer, item_prompt, task_of
from fulmen_trainer.reward import RewardModel, guarded_rewards

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.registry import Registry
    from fulmen_core.runner import Runner
    from fulmen_core.tokenizer import Tokenizer

#: Samples in a report: enough to see what goes wrong, few enough to read.
SHOWN = 8


def verify(registry: Registry, item: Mapping[str, Any], answer: str) -> float:
    """Score an answer in [0, 1] with the verifier that the item names.

    Raises:
        UserError: the item names none, or the score is out of range.
        PluginError: no plugin registers that verifier.
    """
    name = item.get("verifier")
    if not isinstance(name, str):
        raise UserError("a task item names no verifier", where=task_of(item) or "an item", remedy="add one")
    score = float(registry.verifier(name)(answer, item))
    if not 0.0 <= score <= 1.0:
        raise UserError(f"verifier {name!r} returned {score}", remedy="scores lie between 0 and 1")
    return score


def exact_match(
    runner: Runner,
    tokenizer: Tokenizer,
    items: Sequence[Mapping[str, Any]],
    registry: Registry,
    max_tokens: int = 32,
) -> dict[str, Any]:
    """Answer every item greedily and count the answers with the full score; an answer that was cut counts as wrong.

    Returns:
        ``exact_match`` over all items, ``items``, ``by_task``: its like for each task, and
        ``samples``: some ``{"prompt", "answer", "expected", "correct", "task"}``, the first wrong ones first.

    Raises:
        UserError: there is no item, or see `verify`.
    """
    if not items:
        raise UserError("there is no item to evaluate", remedy="give at least one")
    answers = answer_prompts(
        runner, tokenizer, [item_prompt(item) for item in items], SamplingParams(temperature=0, max_tokens=max_tokens)
    )
    correct = np.array(
        [
            answer.finished and verify(registry, item, answer.text) >= 1.0
            for item, answer in zip(items, answers, strict=True)
        ]
    )
    tasks = [task_of(item) for item in items]
    shown = np.argsort(correct, kind="stable")[:SHOWN]  # the wrong ones first
    return {
        "exact_match": float(correct.mean()),
        "items": len(items),
        "by_task": {
            task: {
                "exact_match": float(correct[[name == task for name in tasks]].mean()),
                "items": tasks.count(task),
            }
            for task in sorted(set(tasks))
        },
        "samples": [
            {
                "prompt": item_prompt(items[index])[-1]["content"],
                "answer": answers[index].text,
                "expected": item_answer(items[index]),
                "correct": bool(correct[index]),
                "task": tasks[index],
            }
            for index in shown
        ],
    }


def mean_reward(
    runner: Runner,
    tokenizer: Tokenizer,
    reward_model: RewardModel,
    items: Sequence[Mapping[str, Any]],
    params: SamplingParams,
    *,
    guard: Guard | None = None,
    penalty_weight: float = 0.0,
) -> float:
    """Mean reward of one answer to each item's prompt, drawn with `params`.

    Two models compare fairly only under the same reward model, items, params and, above temperature 0, seed.
    """
    prompts = [item_prompt(item) for item in items]
    answers = answer_prompts(runner, tokenizer, prompts, params)
    answered = [(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    rewards = reward_model.score(answered).astype(np.float64)
    if guard is not None:
        rewards = guarded_rewards(rewards, answered, guard, penalty_weight)
    return float(rewards.mean())
