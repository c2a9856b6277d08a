"""Answers of a model to prompts, through a backend's runner: greedy for evaluation, drawn for preference pairs.

In: a runner, the model's tokenizer, prompts. Out: answer texts. Draws are seeded: the same call gives the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_config
from fulmen_core.runner import EngineLimits, Runner
from fulmen_core.sampling import SamplingParams
from fulmen_trainer.records import Message

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_core.tokenizer import Tokenizer

#: Seeds of the temperatures of one call lie this far apart, so that no two of them share a request's random numbers.
SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer without its end of turn; `finished` is False if it was cut at the token limit."""

    text: str
    finished: bool


@contextmanager
def open_runner(
    registry: Registry, model: Path, *, backend: str = "auto", sequences: int = 64, step_tokens: int = 1024
) -> Iterator[Runner]:
    """Load `model` into a runner for many short sequences, and close it afterwards."""
    context = load_config(model).max_position_embeddings
    limits = EngineLimits(max_sequences=sequences, max_context=context, max_step_tokens=step_tokens)
    runner = registry.backend(backend).load_runner(model, limits)
    try:
        yield runner
    finally:
        runner.close()


def answer_prompts(
    runner: Runner, tokenizer: Tokenizer, prompts: Sequence[Sequence[Message]], params: SamplingParams
) -> list[Answer]:
    """Answer each prompt once."""
    encoded = [tokenizer.encode_chat(prompt, add_generation_prompt=True) for prompt in prompts]
    answers = generate(runner, encoded, params, tokenizer.stop_ids)
    return [Answer(tokenizer.decode(ids), bool(ids) and ids[-1] in tokenizer.stop_ids) for ids in answers]


def sample_answers(
    runner: Runner,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[Message]],
    *,
    answers: int,
    temperatures: Sequence[float],
    max_tokens: int,
    seed: int,
) -> list[list[Answer]]:
    """Draw `answers` answers to each prompt, the temperatures taking turns.

    Returns:
        For each prompt its answers; the first ones at the first temperature.
    """
    results: list[list[Answer]] = [[] for _ in prompts]
    for place, temperature in enumerate(temperatures):
        share = len(range(place, answers, len(temperatures)))
        repeated = [prompt for prompt in prompts for _ in range(share)]
        params = SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed + SEED_STRIDE * place)
        drawn = iter(answer_prompts(runner, tokenizer, repeated, params))
        for result in results:
            result += [next(drawn) for _ in range(share)]
    return results
