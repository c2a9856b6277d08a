"""Preference pairs: their file, their encoding, and how answers become pairs (report sections 4.2.2 and 4.2.3).

In: task items and a sampled model, or JSON Lines of pairs. Out: pairs ``{"prompt", "chosen", "rejected", "source"}``.

Legend: P pairs, A answers to one prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_write_text
from fulmen_trainer.conversations import answer_tokens, item_answer, item_prompt, task_of
from fulmen_trainer.records import Message, checked_messages, read_records

if TYPE_CHECKING:
    from fulmen_core.tokenizer import Tokenizer


DIGITS, LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the first preferred."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs, one object a line; ``"prompt"`` is a list of messages or the text of one user message.

    Raises:
        UserError: a line is broken, an answer is missing, both answers are the same, or there is no pair.
    """
    pairs: list[Pair] = []
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        prompt = tuple(checked_messages(record.get("prompt"), where))
        chosen, rejected = record.get("chosen"), record.get("rejected")
        if not isinstance(chosen, str) or not isinstance(rejected, str):
            raise UserError("chosen and rejected must be strings", where=where, remedy="give the text of both answers")
        if chosen == rejected:
            raise UserError("both answers are the same", where=where, remedy="such a pair prefers nothing; remove it")
        pairs.append(Pair(prompt, chosen, rejected, str(record.get("source", ""))))
    if not pairs:
        raise UserError("there is no preference pair", where=str(path), remedy="the file must not be empty")
    return pairs


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSON Lines, whole or not at all."""
    lines = [json.dumps({**asdict(pair), "prompt": list(pair.prompt)}, ensure_ascii=False) for pair in pairs]
    atomic_write_text(path, "".join(line + "\n" for line in lines))


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Token ids of pairs that fit the context: for each, (chosen, rejected) as (ids, which of them are the answer).

    Attributes:
        answers: two entries a pair, chosen first.
        dropped_long: pairs left out because an answer with its prompt is longer than the context.
    """

    answers: list[tuple[list[int], list[bool]]]
    dropped_long: int

    def __len__(self) -> int:
        return len(self.answers) // 2


def encode_pairs(pairs: Sequence[Pair], tokenizer: Tokenizer, context: int, where: str) -> EncodedPairs:
    """Encode both answers of each pair.

    Raises:
        UserError: no pair fits the context.
    """
    answers: list[tuple[list[int], list[bool]]] = []
    dropped = 0
    for pair in pairs:
        both = [answer_tokens(tokenizer, pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]
        if max(len(token_ids) for token_ids, _ in both) > context:
            dropped += 1
        else:
            answers += both
    if not answers:
        raise UserError(
            f"all {dropped} pairs are longer than {context} tokens", where=where, remedy="raise sequence_length"
        )
    return EncodedPairs(answers, dropped)


def select_pair(
    answers: Sequence[str], rewards: Sequence[float], min_gap: float, may_win: Sequence[bool]
) -> tuple[int, int] | None:
    """Choose the best answer that may win and the worst of all; None if there is none, or the gap is below `min_gap`.

    Ties go to the earlier answer, so the choice is a function of its arguments. Equal rewards or texts form no pair.
    """
    winners = [index for index in range(len(answers)) if may_win[index]]
    if not winners:
        return None
    best = max(winners, key=lambda index: (rewards[index], -index))
    worst = min(range(len(answers)), key=lambda index: (rewards[index], index))
    gap = rewards[best] - rewards[worst]
    if gap < min_gap or gap <= 0 or answers[best] == answers[worst]:
        return None
    return best, worst


def corrupted(answer: str, random: np.random.Generator) -> str:
    """A wrong answer near a right one: a digit exchanged for another, without digits any one character for a letter."""
    if not answer:
        return "?"
    places = [place for place, character in enumerate(answer) if character in DIGITS] or range(len(answer))
    place = int(random.choice(np.asarray(places)))
    character = answer[place]
    alphabet = DIGITS if character in DIGITS else LETTERS
    choices = [other for other in alphabet if other != character]
    return answer[:place] + choices[int(random.integers(len(choices)))] + answer[place + 1 :]


def corrupted_pairs(items: Sequence[Mapping[str, Any]], seed: int) -> list[Pair]:
    """Pairs of each item's known answer and a corrupted one: plentiful and cheap, for preference pre-training.

    Items without a known answer are left out.
    """
    pairs: list[Pair] = []
    for index, item in enumerate(items):
        answer = item_answer(item)
        if answer:
            wrong = corrupted(answer, np.random.default_rng((seed, index)))
            pairs.append(Pair(tuple(item_prompt(item)), answer, wrong, f"corrupted/{task_of(item)}"))
    return pairs
