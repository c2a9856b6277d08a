"""Plays an engine over a runner: gives out slots and pages in random order, steps sequences, forks them, takes tokens
back, and keeps what came out, to be held against the whole forward pass.

Legend: R wanted results, V vocabulary, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.runner import Runner, SequenceStep
from fulmen_testing.reference import Reference

Logits = NDArray[np.float32]
Poison = Callable[[int, list[int]], None]


@dataclass
class Sequence:
    """Its place, its adapter, its tokens, and the logits it got after some of them."""

    slot: int
    pages: list[int] = field(default_factory=list)
    adapter: int = 0
    tokens: list[int] = field(default_factory=list)
    longest: int = 0  # that it ever was
    logits: dict[int, Logits] = field(default_factory=dict)


class Player:
    """An engine without requests. Everything that it gives out was soiled before by sequences that are gone.

    Args:
        random: draws tokens, places and chunks.
        several: results may be wanted of more than the last token.
        poison: spoils what a free slot and free pages hold; where it is not given, the runner's own, if it has one.
    """

    def __init__(
        self, runner: Runner, random: np.random.Generator, *, several: bool = False, poison: Poison | None = None
    ) -> None:
        self.runner, self.random, self.several = runner, random, several
        self._poison: Poison | None = poison or getattr(runner, "poison", None)
        self.played: list[Sequence] = []
        self._free_slots: list[int] = random.permutation(runner.layout.slots).tolist()
        self._free_pages: list[int] = random.permutation(runner.layout.pages).tolist()
        self.soil()

    def soil(self) -> None:
        """Fill every free slot and page with an earlier user's tokens, and give them back."""
        for _ in range(len(self._free_slots)):
            sequence = self.begin()
            while room := self._room(sequence):
                self.grow(sequence, min(room, self.runner.limits.max_step_tokens))
            self.end(sequence)
        self.played.clear()

    def begin(self, adapter: int = 0) -> Sequence:
        """Take a slot for a new sequence."""
        sequence = Sequence(self._free_slots.pop(), adapter=adapter)
        self.played.append(sequence)
        return sequence

    def end(self, sequence: Sequence) -> None:
        """Give a sequence's slot and pages back, as when its client hung up, and poison what nobody else holds."""
        self.runner.release(sequence.slot)
        pages = [page for page in sequence.pages if not self._shared(page, sequence)]
        if self._poison is not None:
            self._poison(sequence.slot, pages)
        self._free_slots.insert(0, sequence.slot)
        self._free_pages[:0] = pages
        sequence.pages = []

    def grow(self, sequence: Sequence, *chunks: int) -> None:
        """Give one sequence random tokens, a step for each chunk."""
        for count in chunks:
            self.step({id(sequence): (sequence, count)})

    def together(self, *plans: tuple[Sequence, int]) -> None:
        """Give each sequence so many random tokens in one step."""
        self.step({id(sequence): (sequence, count) for sequence, count in plans})

    def step(self, plans: Mapping[int, tuple[Sequence, int]]) -> None:
        """Run one step and keep its results."""
        batch = []
        for sequence, count in plans.values():
            new = self._draw(count)
            batch.append(self._share(sequence, new))
            sequence.tokens.extend(new)
        self._run(batch, [sequence for sequence, _ in plans.values()])

    def say(self, sequence: Sequence, tokens: list[int], *company: tuple[Sequence, int]) -> Logits:
        """Give a sequence these tokens, beside random ones for others; return the logits after its last, [V]."""
        batch, everyone = [], [sequence, *(other for other, _ in company)]
        said = [tokens, *(self._draw(count) for _, count in company)]
        for one, new in zip(everyone, said, strict=True):
            batch.append(self._share(one, new)._replace(wanted=1))
            one.tokens.extend(new)
        self._run(batch[::-1], everyone[::-1])  # the others first: their rows come before
        return sequence.logits[len(sequence.tokens) - 1]

    def fork(self, source: Sequence, tokens: int) -> Sequence:
        """Begin a sequence as the first `tokens` of `source`: whole pages are shared, the last is copied."""
        target = self.begin(source.adapter)
        self.runner.copy_slot(source.slot, target.slot, tokens)
        if size := self.runner.layout.page_tokens:
            target.pages = source.pages[: tokens // size]
            if tokens % size:
                target.pages.append(self._free_pages.pop())
                self.runner.copy_page(source.pages[tokens // size], target.pages[-1])
        target.tokens, target.longest = source.tokens[:tokens], source.longest
        return target

    def take_back(self, sequence: Sequence, tokens: int) -> None:
        """Forget the last tokens of a sequence: the next step overwrites them."""
        del sequence.tokens[len(sequence.tokens) - tokens :]
        sequence.logits = {at: row_V for at, row_V in sequence.logits.items() if at < len(sequence.tokens)}

    def rewindable(self, sequence: Sequence) -> int:
        """How many tokens the layout lets one take back from the end of a sequence, at least one being left."""
        windows = [group.window for group in self.runner.cache.groups if group.window is not None]
        rewind, length = self.runner.layout.rewind, len(sequence.tokens)
        if not windows or sequence.longest <= min(windows) + rewind:
            return length - 1
        return max(0, min(rewind - (sequence.longest - length), length - 1))

    def mix(self, steps: int) -> list[Sequence]:
        """Run random mixed steps: chunks and single tokens, sequences that end in the middle and slots used again.

        Return every sequence that has got a result.
        """
        current: list[Sequence] = []
        limits = self.runner.limits
        for _ in range(steps):
            for sequence in list(current):
                if self._room(sequence) == 0 or self.random.random() < 0.1:
                    self.end(sequence)
                    current.remove(sequence)
            while len(current) < limits.max_sequences:
                current.append(self.begin())
            budget, plans = limits.max_step_tokens, {}
            for place in self.random.permutation(len(current)).tolist():
                sequence = current[place]
                room = min(budget, self._room(sequence))
                if room == 0 or self.random.random() < 0.25:
                    continue
                alone = sequence.tokens and self.random.random() < 0.5
                count = 1 if alone else int(self.random.integers(1, room + 1))
                plans[id(sequence)] = (sequence, count)
                budget -= count
            if plans:
                self.step(plans)
        return [sequence for sequence in self.played if sequence.logits]

    def _run(self, batch: list[SequenceStep], sequences: list[Sequence]) -> None:
        logits_RV = self.runner.step(batch)
        assert logits_RV.dtype == np.float32
        assert logits_RV.shape == (sum(step.wanted for step in batch), self.runner.vocab_size)
        rows = iter(logits_RV.copy())
        for sequence, step in zip(sequences, batch, strict=True):
            sequence.longest = max(sequence.longest, len(sequence.tokens))
            end = step.start + len(step.token_ids)
            for position in range(end - step.wanted, end):
                sequence.logits[position] = next(rows)

    def _draw(self, count: int) -> list[int]:
        tokens: list[int] = self.random.integers(0, self.runner.vocab_size, count).tolist()
        return tokens

    def _share(self, sequence: Sequence, new: list[int]) -> SequenceStep:
        start = len(sequence.tokens)
        while len(sequence.pages) < self.runner.layout.pages_for(start + len(new)):
            sequence.pages.append(self._free_pages.pop())
        wanted = int(self.random.integers(1, len(new) + 1)) if self.several else 1
        pages = list(sequence.pages) if self.runner.layout.page_tokens else None
        return SequenceStep(sequence.slot, start, new, pages, wanted, sequence.adapter)

    def _room(self, sequence: Sequence) -> int:
        size = self.runner.layout.page_tokens
        paged = (len(sequence.pages) + len(self._free_pages)) * size if size else self.runner.limits.max_context
        return min(self.runner.limits.max_context, paged) - len(sequence.tokens)

    def _shared(self, page: int, owner: Sequence) -> bool:
        return any(page in other.pages for other in self.played if other is not owner)


@dataclass
class Judgement:
    """How far the results of some sequences lie from the truth."""

    judged: int = 0
    passed_over: int = 0  # after a toss of the router
    worst: float = 0.0
    errors: list[float] = field(default_factory=list)  # of each result: root mean square over that of the logits

    def __str__(self) -> str:
        return f"{self.judged} results judged, {self.passed_over} passed over, largest difference {self.worst:.2e}"


def judge(reference: Reference, sequences: list[Sequence]) -> Judgement:
    """Hold the results of `sequences` against the whole forward pass, token by token."""
    found = Judgement()
    for sequence in sequences:
        if not sequence.logits:
            continue
        expected_TV, fair_T = reference.logits(sequence.tokens)
        for position, logits_V in sequence.logits.items():
            if not fair_T[position]:
                found.passed_over += 1
                continue
            difference_V: Any = logits_V - expected_TV[position]
            spread = float(np.sqrt(np.mean((expected_TV[position] - expected_TV[position].mean()) ** 2)))
            found.judged += 1
            found.errors.append(float(np.sqrt(np.mean(difference_V**2))) / spread)
            largest = float(np.abs(difference_V).max())
            found.worst = max(found.worst, largest if np.isfinite(largest) else np.inf)
    return found
