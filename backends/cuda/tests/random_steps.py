"""Random mixed steps over a runner: slots and pages in random order, forks, tokens taken back, and rubbish underneath.

Legend: T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fulmen_backend_cuda.runner import CudaRunner
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import SequenceStep
from fulmen_testing.agreement import assert_equal, in_float64, settled_logits

ROUTING_TIE = 1e-5  # of scores


@dataclass
class Played:
    """A sequence: where it lies, its tokens, and the logits it got after some of them."""

    slot: int
    pages: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logits: dict[int, np.ndarray] = field(default_factory=dict)
    written: int = 0  # the end of what its slot has held


class Player:
    """Runs random steps and remembers what came of them.

    Args:
        runner: with free slots for forks: `cached_sequences`.
        random: decides everything.
    """

    def __init__(self, runner: CudaRunner, random: np.random.Generator) -> None:
        self.runner, self.random = runner, random
        self.free_slots: list[int] = random.permutation(runner.layout.slots).tolist()
        self.free_pages: list[int] = random.permutation(runner.layout.pages).tolist()
        self.live: list[Played] = []
        self.all: list[Played] = []
        for slot in self.free_slots:
            poison_slot(runner, slot)
        for page in self.free_pages:
            poison_page(runner, page)

    def play(self, steps: int) -> list[Played]:
        """So many steps; every sequence that was run."""
        for _ in range(steps):
            for sequence in list(self.live):
                if self.random.random() < 0.08:
                    self.end(sequence)
                elif self.random.random() < 0.2:
                    self.take_back(sequence)
            while len(self.live) < self.runner.limits.max_sequences and self.free_slots and self.random.random() < 0.6:
                if self.live and self.random.random() < 0.4:
                    self.fork(self.live[int(self.random.integers(len(self.live)))])
                else:
                    self._begin()
            self.step()
        return [sequence for sequence in self.all if sequence.logits]

    def step(self) -> None:
        """One step over a random choice of the live sequences: half of the steps are single tokens alone."""
        runner, random = self.runner, self.random
        budget = runner.limits.max_step_tokens
        alone = random.random() < 0.5
        batch, sequences = [], []
        for index in random.permutation(len(self.live)).tolist():
            sequence = self.live[index]
            room = min(budget, runner.limits.max_context - len(sequence.tokens))
            if room < 1 or random.random() < 0.15 or (alone and not sequence.tokens):
                continue
            single = sequence.tokens and (alone or random.random() < 0.5)
            count = 1 if single else int(random.integers(1, room + 1))
            needed = runner.layout.pages_for(len(sequence.tokens) + count) - len(sequence.pages)
            if needed > len(self.free_pages):
                continue
            sequence.pages += [self.free_pages.pop() for _ in range(needed)]
            new = random.integers(0, runner.vocab_size, count).tolist()
            wanted = int(random.integers(1, count + 1))
            batch.append(SequenceStep(sequence.slot, len(sequence.tokens), new, list(sequence.pages), wanted))
            sequences.append(sequence)
            sequence.tokens += new
            sequence.written = max(sequence.written, len(sequence.tokens))
            budget -= count
        if not batch:
            return
        logits_RV = runner.step(batch)
        assert logits_RV.dtype == np.float32
        assert logits_RV.shape == (sum(step.wanted for step in batch), runner.vocab_size)
        rows = iter(logits_RV)
        for step, sequence in zip(batch, sequences, strict=True):
            end = step.start + len(step.token_ids)
            for position in range(end - step.wanted, end):
                sequence.logits[position] = next(rows)

    def fork(self, source: Played) -> None:
        """A sequence that begins as `source`: whole pages are shared, the last one is copied."""
        page = self.runner.layout.page_tokens
        length = self._shorter(source)
        if length < 1 or not self.free_pages:
            return
        target = Played(
            self.free_slots.pop(), source.pages[: length // page], source.tokens[:length], written=source.written
        )
        self.runner.copy_slot(source.slot, target.slot, length)
        if length % page:
            target.pages.append(self.free_pages.pop())
            self.runner.copy_page(source.pages[length // page], target.pages[-1])
        self.live.append(target)
        self.all.append(target)

    def take_back(self, sequence: Played) -> None:
        """Forget some of the last tokens, as many as the layout allows at most."""
        length = self._shorter(sequence)
        shared = [page for other in self.live if other is not sequence for page in other.pages]
        if any(page in shared for page in sequence.pages[length // self.runner.layout.page_tokens :]):
            return  # what is written next would be seen by another
        del sequence.tokens[length:]
        sequence.logits = {at: row_V for at, row_V in sequence.logits.items() if at < length}

    def end(self, sequence: Played) -> None:
        """Give slot and pages back, and spoil what is in them."""
        self.runner.release(sequence.slot)
        self.live.remove(sequence)
        poison_slot(self.runner, sequence.slot)
        self.free_slots.insert(0, sequence.slot)
        shared = {page for other in self.live for page in other.pages}
        for page in sequence.pages:
            if page not in shared:
                poison_page(self.runner, page)
                self.free_pages.insert(0, page)

    def _begin(self) -> None:
        sequence = Played(self.free_slots.pop())
        self.live.append(sequence)
        self.all.append(sequence)

    def _shorter(self, sequence: Played) -> int:
        """A length that the sequence may go back to: see `CacheLayout.rewind`."""
        windows = [group.window for group in self.runner.cache.groups if group.window is not None]
        rewind, length = self.runner.layout.rewind, len(sequence.tokens)
        lossless = not windows or sequence.written <= min(windows) + rewind
        least = 0 if lossless else max(0, sequence.written - rewind)
        return int(self.random.integers(min(least, length), length + 1))


def poison_slot(runner: CudaRunner, slot: int) -> None:
    """Fill the rings of a slot with NaN, as an earlier user might have left them."""
    _poison(runner, slot, pages=False)


def poison_page(runner: CudaRunner, page: int) -> None:
    """Fill a page with NaN."""
    _poison(runner, page, pages=True)


def _poison(runner: CudaRunner, unit: int, *, pages: bool) -> None:
    for cache in runner._kv._caches:
        if (cache.window is None) == pages:
            for x_PKh in (cache.k_PKh, cache.v_PKh):
                x_PKh.narrow(0, unit * cache.unit, cache.unit).fill_(torch.nan)


def reference_logits(model: Transformer, tokens: list[int]) -> np.ndarray:
    """Logits after every token, of the whole row at once; those after a token whose routing is a coin toss are NaN."""
    return settled_logits(model, tokens, ROUTING_TIE)


def assert_equal_to_the_model(directory: Path, played: list[Played], tolerance: float = 1e-4) -> int:
    """Hold every result against the model in float64 over the whole sequence; how many were held."""
    return assert_equal(in_float64(directory), played, tie=ROUTING_TIE, tolerance=tolerance)
