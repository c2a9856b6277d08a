"""What is asked in a soak: seeded requests of every kind, each with only one right answer, and some to be refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_WORDS = ("model", "expert", "token", "layer", "window", "cache", "prefix", "router", "batch", "page", "slot", "guard")
_KINDS = ("chat", "completion", "token ids", "several", "shared prefix", "conversation", "embedding", "stop")
_TURNS = 3


@dataclass(slots=True)
class Question:
    """A request whose answer does not depend on when it is asked.

    Attributes:
        kind: what it is about.
        path, body: the request.
        expected: what was answered to it alone; filled in by whoever asked.
    """

    kind: str
    path: str
    body: dict[str, Any]
    expected: Any = field(default=None)

    @property
    def streams(self) -> bool:
        """Whether it can be asked for as a stream."""
        return self.path != "v1/embeddings"


#: Requests that a client gets wrong: path, body (text is sent as it is), and the status of the refusal.
MALFORMED: tuple[tuple[str, dict[str, Any] | str, int], ...] = (
    ("v1/chat/completions", "{not json", 400),
    ("v1/chat/completions", "[]", 400),
    ("v1/chat/completions", {"model": "soak"}, 400),
    ("v1/chat/completions", {"model": "soak", "messages": []}, 400),
    ("v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "a"}]}, 404),
    ("v1/chat/completions", {"model": "soak", "messages": [{"role": "user", "content": "a"}], "temperature": 3}, 400),
    ("v1/chat/completions", {"model": "soak", "messages": [{"role": "user", "content": "a"}], "n": 10_000}, 400),
    ("v1/chat/completions", {"model": "soak", "mesages": [{"role": "user", "content": "a"}]}, 400),
    ("v1/completions", {"model": "soak", "prompt": "a b " * 20_000}, 400),
    ("v1/completions", {"model": "soak", "prompt": [-1]}, 400),
    ("v1/completions", {"model": "soak", "prompt": [10**9]}, 400),
    ("v1/completions", {"model": "soak", "prompt": "a", "stop": ["a", "b", "c", "d", "e"]}, 400),
    ("v1/embeddings", {"model": "soak", "input": []}, 400),
    ("v1/nothing", {}, 404),
)


class Questions:
    """Makes questions, the same ones for a seed.

    Args:
        source: of all that is random in them.
        vocab_size: token ids are below it.
        longest: the most words of a prompt.
        models: the names of what is served.
        embeds: whether the server has embeddings.
    """

    def __init__(
        self, source: random.Random, vocab_size: int, longest: int, models: Sequence[str], *, embeds: bool
    ) -> None:
        self._source, self._vocab_size, self._longest, self._models = source, vocab_size, longest, models
        self._kinds = [kind for kind in _KINDS if embeds or kind != "embedding"]
        self._prefixes = [self._text(longest) for _ in range(4)]

    def opening(self, number: int) -> Question:
        """A question; those of kind "stop" and "conversation" are followed up once they are answered."""
        kind = self._kinds[number % len(self._kinds)]
        source = self._source
        if kind == "embedding":
            texts = [self._text(self._longest) for _ in range(source.randint(1, 3))]
            return Question(kind, "v1/embeddings", {"model": source.choice(self._models), "input": texts})
        if kind == "completion":
            return Question(kind, "v1/completions", self._how() | {"prompt": self._text(self._longest)})
        if kind == "token ids":
            ids = [source.randrange(self._vocab_size) for _ in range(source.randint(1, 2 * self._longest))]
            return Question(kind, "v1/completions", self._how() | {"prompt": ids})
        text = self._text(self._longest)
        if kind == "shared prefix":
            text = f"{source.choice(self._prefixes)} {text}"
        body = self._how() | {"messages": [{"role": "user", "content": text}]}
        if kind == "several":
            body["n"] = source.randint(2, 3)
        return Question(kind, "v1/chat/completions", body)

    def follow_ups(self, asked: Question, texts: list[str]) -> list[Question]:
        """What can be asked once the answer to `asked` is known: the next turn, or to stop in the middle of it."""
        if asked.kind == "stop" and len(texts[0]) > 3 and "stop" not in asked.body:
            begin = self._source.randrange(1, len(texts[0]) - 2)
            return [Question("stop", asked.path, asked.body | {"stop": [texts[0][begin : begin + 2]]})]
        if asked.kind == "conversation" and len(asked.body["messages"]) < 2 * _TURNS - 1:
            said = [{"role": "assistant", "content": texts[0]}, {"role": "user", "content": self._text(8)}]
            return [Question(asked.kind, asked.path, asked.body | {"messages": [*asked.body["messages"], *said]})]
        return []

    def _how(self) -> dict[str, Any]:
        """Greedy, or sampled with a seed: either way there is one answer."""
        source = self._source
        how: dict[str, Any] = {"model": source.choice(self._models), "max_tokens": source.randint(1, 48)}
        if source.random() < 0.5:
            return how | {"temperature": 0}
        how |= {"temperature": source.choice((0.5, 1.0, 1.5)), "seed": source.randrange(2**31)}
        if source.random() < 0.5:
            how["top_p"] = 0.9
        if source.random() < 0.3:
            how |= {"presence_penalty": 0.5, "frequency_penalty": 0.5}
        return how

    def _text(self, longest: int) -> str:
        words = self._source.choices(_WORDS, k=self._source.randint(1, longest))
        return " ".join([*words, str(self._source.randrange(10**6))])
