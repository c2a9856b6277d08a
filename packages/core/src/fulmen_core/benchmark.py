"""The contract of a benchmark: questions, and a score for each answer. What asks the model is not its business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One question.

    Attributes:
        id: unlike that of every other item of the benchmark; the same in every run.
        messages: the conversation to be answered, as the chat API takes it: ``{"role", "content"}`` each.
        reference: what scoring needs, in JSON's types, e.g. ``{"answer": "42"}``. The model is not shown it.
    """

    id: str
    messages: Sequence[Mapping[str, str]]
    reference: Mapping[str, object] = field(default_factory=dict)


class Benchmark(Protocol):
    """A benchmark with its settings. Items come in the same order every time."""

    def items(self) -> Iterator[BenchmarkItem]:
        """Yield every question. It may be asked for again."""
        ...

    def score(self, item: BenchmarkItem, answer: str) -> float:
        """Say how good an answer to `item` is, in [0, 1]. Any text is an answer: a bad one is 0, not an exception."""
        ...
