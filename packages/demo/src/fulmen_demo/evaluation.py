"""What the three checkpoints can do, on prompts and files that none of them saw.

In: model directories, a reward directory, held-out items and documents. Out: one JSON file and its headline figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fulmen_core.files import atomic_write_json
from fulmen_core.generation import generate
from fulmen_core.registry import Registry
from fulmen_core.runner import Runner
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import Tokenizer, load_tokenizer
from fulmen_demo.config import EvaluationConfig
from fulmen_trainer.answering import answer_prompts, open_runner
from fulmen_trainer.conversations import item_prompt, read_items
from fulmen_trainer.data.documents import read_documents, text_of
from fulmen_trainer.evaluation import mean_reward, verify
from fulmen_trainer.reward import RewardModel

#: Seed of the answers whose mean reward is compared.
REWARD_SEED = 1234

#: Questions shown in the report, for each task.
SHOWN_PER_TASK = 1

#: Held-out files that the models continue, and how many characters of each they are given.
CONTINUED_FILES, CONTINUED_CHARACTERS = 2, 240


def by_task(items: Sequence[Mapping[str, Any]], per_task: int) -> dict[str, list[Mapping[str, Any]]]:
    """The first `per_task` items of each task, tasks in order of appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        group = groups.setdefault(str(item["task"]), [])
        if len(group) < per_task:
            group.append(item)
    return groups


def evaluate(
    models: Mapping[str, Path],
    reward: Path,
    heldout_items: Path,
    heldout_text: Path,
    *,
    config: EvaluationConfig,
    registry: Registry,
    backend: str,
    out: Path,
) -> dict[str, Any]:
    """Ask every model every held-out item, greedily; write all figures and samples to `out`.

    Returns:
        For each model ``arithmetic`` (exact match over the arithmetic tasks), ``exact_match`` (over all) and ``reward``
        (mean under the one reward model, of answers drawn with one seed).
    """
    tasks = by_task(read_items(heldout_items), config.items_per_task)
    starts = [text_of(record)[:CONTINUED_CHARACTERS] for record in read_documents(heldout_text)]
    starts = [text for text in starts if len(text) == CONTINUED_CHARACTERS][:CONTINUED_FILES]
    reward_model = RewardModel.load(reward)
    results = {}
    for name, path in models.items():
        with open_runner(registry, path, backend=backend) as runner:
            results[name] = _evaluate_one(runner, load_tokenizer(path), tasks, starts, reward_model, config, registry)
    questions = [(task, index) for task in tasks for index in range(min(SHOWN_PER_TASK, len(tasks[task])))]
    atomic_write_json(out, {"models": results, "questions": [_question(tasks[task][i]) for task, i in questions]})
    return {
        name: {key: result[key] for key in ("arithmetic", "exact_match", "reward")} for name, result in results.items()
    }


def _question(item: Mapping[str, Any]) -> dict[str, str]:
    return {"task": str(item["task"]), "prompt": item_prompt(item)[-1]["content"], "expected": str(item["answer"])}


def _evaluate_one(
    runner: Runner,
    tokenizer: Tokenizer,
    tasks: Mapping[str, Sequence[Mapping[str, Any]]],
    starts: Sequence[str],
    reward_model: RewardModel,
    config: EvaluationConfig,
    registry: Registry,
) -> dict[str, Any]:
    greedy = SamplingParams(temperature=0, max_tokens=config.max_tokens)
    right: dict[str, list[bool]] = {}
    shown: list[dict[str, Any]] = []
    for task, items in tasks.items():
        answers = answer_prompts(runner, tokenizer, [item_prompt(item) for item in items], greedy)
        right[task] = [
            answer.finished and verify(registry, item, answer.text) >= 1.0
            for item, answer in zip(items, answers, strict=True)
        ]
        shown += [
            {"text": answer.text, "right": correct}
            for answer, correct in zip(answers[:SHOWN_PER_TASK], right[task], strict=False)
        ]
    arithmetic = [correct for task in config.arithmetic for correct in right.get(task, [])]
    everything = [correct for results in right.values() for correct in results]
    drawn = SamplingParams(temperature=config.reward_temperature, max_tokens=config.max_tokens, seed=REWARD_SEED)
    continuation = SamplingParams(temperature=0.7, max_tokens=config.continuation_tokens, seed=REWARD_SEED)
    continued = generate(runner, [[tokenizer.eos_id, *tokenizer.encode(text)] for text in starts], continuation, ())
    return {
        "arithmetic": sum(arithmetic) / len(arithmetic),
        "exact_match": sum(everything) / len(everything),
        "by_task": {task: sum(results) / len(results) for task, results in right.items()},
        "items": len(everything),
        "reward": mean_reward(runner, tokenizer, reward_model, [i for items in tasks.values() for i in items], drawn),
        "answers": shown,
        "continuations": [
            {"prompt": start, "text": tokenizer.decode(ids)} for start, ids in zip(starts, continued, strict=True)
        ],
    }
