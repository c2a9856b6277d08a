"""From a model's own answers to preference pairs: sample, judge, take the best and the worst (report section 4.2.2).

In: task items, a runner, a judge. Out: pairs with a sufficient gap, and counts of what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import Tokenizer, load_tokenizer
from fulmen_trainer.answering import open_runner, sample_answers
from fulmen_trainer.conversations import item_answer, item_prompt, task_of
from fulmen_trainer.evaluation import verify
from fulmen_trainer.preferences import Pair, select_pair, write_pairs
from fulmen_trainer.reward import RewardModel, guarded_rewards

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.registry import Registry
    from fulmen_core.runner import Runner

#: What the pairs of one making are stored in.
PAIRS_FILE = "pairs.jsonl"


class PairConfig(BaseModel):
    """How pairs are made of sampled answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: int = Field(16, ge=1)  # sampled for each prompt (report: 16)
    temperatures: tuple[float, ...] = Field((1.0, 0.7), min_length=1)  # taking turns (arXiv 2405.07863)
    max_tokens: int = Field(32, ge=1)  # of an answer; answers cut there are left out
    min_gap: float = Field(0.5, ge=0)  # pairs whose rewards differ by less are dropped
    verifier_weight: float = Field(10.0, ge=0)  # of the verifier's score in [0, 1]: right beats wrong, whatever else
    penalty_weight: float = Field(1.0, ge=0)  # of the guard's penalty in [0, 1] (RAISE-2)
    known_answer: bool = False  # whether the item's own answer competes with the sampled ones (off-policy)


class Verdict(NamedTuple):
    """The judge's view of some answers.

    Attributes:
        rewards: float64.
        right: bool, False where a verifier gave less than the full score; such an answer never wins a pair.
    """

    rewards: NDArray[np.float64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Judge:
    """What makes an answer good: reward model, the item's verifier, and the guard's penalty, added up.

    Attributes:
        registry: where verifiers come from.
        config: the weights.
        reward_model: None leaves it out.
        guard: None leaves it out.
    """

    registry: Registry
    config: PairConfig
    reward_model: RewardModel | None = None
    guard: Guard | None = None

    def judge(self, items: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> Verdict:
        """Judge one answer to each item. Items that name no verifier are judged by the reward model alone.

        Raises:
            UserError: there is no reward model, and an item names no verifier or verifiers have no weight.
        """
        weight = self.config.verifier_weight
        verified = [weight > 0 and "verifier" in item for item in items]
        if self.reward_model is None and not all(verified):
            raise UserError(
                "nothing judges the answers",
                remedy="give a reward model, or items with a verifier and verifier_weight > 0",
            )
        scores = np.array(
            [
                verify(self.registry, item, answer) if by_rule else 1.0
                for item, answer, by_rule in zip(items, answers, verified, strict=True)
            ]
        )
        rewards = weight * scores * np.array(verified)
        answered = [(item_prompt(item), answer) for item, answer in zip(items, answers, strict=True)]
        if self.reward_model is not None:
            rewards = rewards + self.reward_model.score(answered)
        if self.guard is not None:
            rewards = guarded_rewards(rewards, answered, self.guard, self.config.penalty_weight)
        return Verdict(rewards, scores >= 1.0)


def build_pairs(
    runner: Runner,
    tokenizer: Tokenizer,
    items: Sequence[Mapping[str, Any]],
    judge: Judge,
    *,
    seed: int,
    source: str = "sampled",
) -> tuple[list[Pair], dict[str, float]]:
    """Sample answers to each item and make at most one pair of them: best against worst, if far enough apart.

    Returns:
        The pairs in the order of the items, and ``prompts``, ``pairs``, ``no_pair`` (prompts without one: too small a
        gap, or no answer is right), ``unfinished`` (answers cut at the limit and left out), and over the finished
        sampled answers ``mean_reward`` and the share that is ``right``.
    """
    config = judge.config
    drawn = sample_answers(
        runner,
        tokenizer,
        [item_prompt(item) for item in items],
        answers=config.answers,
        temperatures=config.temperatures,
        max_tokens=config.max_tokens,
        seed=seed,
    )
    # Equal texts are judged once: a trained model repeats itself, and scoring is the dearest part.
    finished = [[answer.text for answer in answers if answer.finished] for answers in drawn]
    candidates = [
        list(dict.fromkeys([*texts, item_answer(item)] if config.known_answer and item_answer(item) else texts))
        for item, texts in zip(items, finished, strict=True)
    ]
    verdict = judge.judge(
        [item for item, texts in zip(items, candidates, strict=True) for _ in texts],
        [text for texts in candidates for text in texts],
    )
    pairs: list[Pair] = []
    sampled: list[tuple[float, bool]] = []
    start = 0
    for item, texts, own in zip(items, candidates, finished, strict=True):
        here = slice(start, start + len(texts))
        start += len(texts)
        scores, right = verdict.rewards[here].tolist(), verdict.right[here].tolist()
        by_text = dict(zip(texts, zip(scores, right, strict=True), strict=True))
        sampled += [by_text[text] for text in own]
        chosen = select_pair(texts, scores, config.min_gap, right)
        if chosen is not None:
            best, worst = chosen
            pairs.append(Pair(tuple(item_prompt(item)), texts[best], texts[worst], f"{source}/{task_of(item)}"))
    return pairs, {
        "prompts": len(items),
        "pairs": len(pairs),
        "unfinished": sum(not answer.finished for answers in drawn for answer in answers),
        "no_pair": len(items) - len(pairs),
        "mean_reward": float(np.mean([reward for reward, _ in sampled])) if sampled else 0.0,
        "right": float(np.mean([right for _, right in sampled])) if sampled else 0.0,
    }


def sample_pairs(
    model: Path,
    items: Sequence[Mapping[str, Any]],
    judge: Judge,
    *,
    seed: int,
    work: Path,
    backend: str = "auto",
) -> dict[str, float]:
    """Have the model in `model` answer `items`, and leave the pairs in ``work/pairs.jsonl``.

    Returns:
        What `build_pairs` counted.

    Raises:
        UserError: no item gave a pair.
    """
    tokenizer = load_tokenizer(model)
    with open_runner(judge.registry, model, backend=backend) as runner:
        pairs, counts = build_pairs(runner, tokenizer, items, judge, seed=seed)
    if not pairs:
        raise UserError(
            f"none of {len(items)} prompts gave a pair",
            where=str(model),
            remedy="lower pairs.min_gap, raise pairs.temperatures or take more prompts",
        )
    write_pairs(work / PAIRS_FILE, pairs)
    return counts
