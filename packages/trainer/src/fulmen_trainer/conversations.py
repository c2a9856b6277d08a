"""Conversations as samples: which tokens are read and which are trained, with every sample that is left out counted.

In: JSON Lines of instructions and the model's own tokenizer. Out: `Sample`s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fulmen_core.errors import UserError
from fulmen_trainer.packing_samples import Sample
from fulmen_trainer.records import Message, checked_messages, read_records

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.tokenizer import Tokenizer


@dataclass(slots=True)
class InstructionSet:
    """Encoded instructions, and what happened to the rest.

    Attributes:
        samples: what will be trained.
        truncated: samples cut to the context; they are in `samples`.
        dropped_long: samples longer than the context, or without a trained token inside it.
        dropped_unsafe: samples that RAISE-2 judged too harmful.
    """

    samples: list[Sample] = field(default_factory=list)
    truncated: int = 0
    dropped_long: int = 0
    dropped_unsafe: int = 0

    def counts(self) -> dict[str, int]:
        """The counts, for the manifest."""
        return {
            "samples": len(self.samples),
            "truncated": self.truncated,
            "dropped_long": self.dropped_long,
            "dropped_unsafe": self.dropped_unsafe,
        }


def encode_instruction(tokenizer: Tokenizer, messages: Sequence[Message], where: str) -> Sample:
    """Encode a conversation whose assistant turns are trained, each with its end-of-turn token.

    Raises:
        UserError: no token would be trained.
    """
    try:
        token_ids, trained = tokenizer.encode_chat_masked(messages)
    except UserError as error:
        raise UserError(error.what, where=where, remedy=error.remedy) from error
    return Sample.next_token(token_ids, trained)


def answer_tokens(tokenizer: Tokenizer, prompt: Sequence[Message], answer: str) -> tuple[list[int], list[bool]]:
    """Token ids of prompt and answer up to the end of the turn, and which belong to this answer.

    Assistant turns inside the prompt do not count as the answer.
    """
    token_ids, trained = tokenizer.encode_chat_masked([*prompt, {"role": "assistant", "content": answer}])
    start = len(tokenizer.encode_chat(prompt, add_generation_prompt=True))
    own = [flag and place >= start for place, flag in enumerate(trained)]
    end = len(own) - own[::-1].index(True)
    return token_ids[:end], own[:end]


def encode_answer(tokenizer: Tokenizer, prompt: Sequence[Message], answer: str) -> Sample:
    """A sample that scores the tokens of `answer`, its end of turn included."""
    return Sample.next_token(*answer_tokens(tokenizer, prompt, answer))


def read_instructions(
    path: Path,
    tokenizer: Tokenizer,
    context: int,
    *,
    too_long: Literal["drop", "truncate"] = "drop",
    guard: Guard | None = None,
    max_penalty: float = 1.0,
) -> InstructionSet:
    """Read and encode instructions: one ``{"messages": [...], ...}`` a line; other keys are left alone.

    Args:
        path: JSON Lines.
        tokenizer: the model's.
        context: positions that the model reads at most in one sample.
        too_long: whether a longer sample is dropped or cut.
        guard: judges every assistant turn (RAISE-2); None judges nothing.
        max_penalty: samples with an answer above this penalty, in [0, 1], are dropped.

    Raises:
        UserError: a line is broken or has no token to train, or no sample is left.
    """
    result = InstructionSet()
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        messages = checked_messages(record.get("messages"), where)
        sample = encode_instruction(tokenizer, messages, where)
        if guard is not None and conversation_penalty(guard, messages) > max_penalty:
            result.dropped_unsafe += 1
            continue
        if len(sample) > context:
            sample = sample.truncated(context)
            if too_long == "drop" or not sample.scored.any():
                result.dropped_long += 1
                continue
            result.truncated += 1
        result.samples.append(sample)
    if not result.samples:
        left_out = result.dropped_long + result.dropped_unsafe
        raise UserError(
            f"no sample is left of {left_out}" if left_out else "there is no sample",
            where=str(path),
            remedy="raise the sequence length or the penalty threshold" if left_out else "the file must not be empty",
        )
    return result


def prompt_text(prompt: Sequence[Message]) -> str:
    """The prompt as the guard reads it."""
    return "\n".join(message["content"] for message in prompt)


def conversation_penalty(guard: Guard, messages: Sequence[Message]) -> float:
    """The highest penalty of any assistant turn, given what came before it."""
    return max(
        (
            guard.reward_penalty(prompt_text(messages[:place]), message["content"])
            for place, message in enumerate(messages)
            if message["role"] == "assistant"
        ),
        default=0.0,
    )


def read_items(path: Path) -> list[dict[str, Any]]:
    """Read task items: instructions with their verifier's fields. Messages are checked, nothing is encoded.

    Raises:
        UserError: a line is broken, or there is none.
    """
    items: list[dict[str, Any]] = [
        {**record, "messages": checked_messages(record.get("messages"), f"{path}, line {number}")}
        for number, record in read_records(path)
    ]
    if not items:
        raise UserError("there is no task item", where=str(path), remedy="the file must not be empty")
    return items


def item_prompt(item: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of an item before its final answer."""
    messages = [dict(message) for message in item["messages"]]
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def item_answer(item: Mapping[str, Any]) -> str:
    """The known answer of an item: its final assistant message, else its field ``answer``, else ``""``."""
    last = item["messages"][-1]
    return str(last["content"] if last["role"] == "assistant" else item.get("answer", ""))


def task_of(item: Mapping[str, Any]) -> str:
    """The name that an item's measurements are grouped under: its field ``task``, else ``source``."""
    return str(item.get("task", item.get("source", "")))


def scored_counts(samples: Sequence[Sample]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many positions each sample scores, int64 ``[M]``."""
    return np.array([int(sample.scored.sum()) for sample in samples], np.int64)
