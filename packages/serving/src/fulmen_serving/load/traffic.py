"""What clients say: seeded conversations of random words, with prompts of a wanted length in tokens."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import Literal

from fulmen_core.errors import UserError

Kind = Literal["random", "shared-prefix", "multi-turn"]
KINDS: tuple[Kind, ...] = ("random", "shared-prefix", "multi-turn")


@dataclass(frozen=True, slots=True)
class Traffic:
    """A kind of traffic.

    Attributes:
        kind: "random": every prompt is new. "shared-prefix": all begin with the same words. "multi-turn": each client
            goes on with its conversation, whose later prompts contain the earlier ones and their answers.
        prompt_tokens: of what one user message adds, the shared prefix not counted.
        output_tokens: the most tokens of one answer.
        prefix_tokens: of the shared prefix.
        turns: of a conversation; 1 unless it is multi-turn.
        seed: the same seed gives the same words.
        turn_tokens: of every user message but a conversation's first; 0 is as many as `prompt_tokens`.
    """

    kind: Kind = "random"
    prompt_tokens: int = 128
    output_tokens: int = 64
    prefix_tokens: int = 256
    turns: int = 1
    seed: int = 0
    turn_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "output_tokens", "prefix_tokens", "turns"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}", remedy="give at least 1")
        if self.turn_tokens < 0:
            raise UserError(f"turn_tokens is {self.turn_tokens}", remedy="give at least 1")
        if self.kind not in KINDS:
            raise UserError(f"there is no traffic {self.kind!r}", remedy=f"choose one of {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class WordLength:
    """How a server's tokenizer and template count: a prompt of n words has about ``fixed + per_word * n`` tokens."""

    fixed: float = 0.0
    per_word: float = 3.0

    def words(self, tokens: int, *, first: bool = True) -> int:
        """Words that make `tokens` tokens, at least one; the template counts in the first message alone."""
        return max(1, round((tokens - (self.fixed if first else 0.0)) / self.per_word))


def random_words(source: random.Random, count: int) -> str:
    """`count` words of five letters: no tokenizer knows them, so their tokens are many and alike."""
    return " ".join("".join(source.choices(string.ascii_lowercase, k=5)) for _ in range(count))


def user_messages(traffic: Traffic, length: WordLength, number: int) -> list[str]:
    """What the user says in conversation `number`, turn by turn; independent of every other conversation."""
    source = random.Random(f"{traffic.seed} conversation {number}")
    said = []
    for turn in range(traffic.turns):
        shared = traffic.kind == "shared-prefix" and turn == 0
        tokens = (traffic.turn_tokens or traffic.prompt_tokens) if turn else traffic.prompt_tokens
        words = random_words(source, length.words(tokens, first=turn == 0 and not shared))
        if shared:
            prefix = random.Random(f"{traffic.seed} prefix")
            words = f"{random_words(prefix, length.words(traffic.prefix_tokens))} {words}"
        said.append(words)
    return said
