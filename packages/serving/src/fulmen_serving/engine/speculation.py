"""Guessing the next tokens of an answer, so that one step can check several at once (arXiv 2211.17192).

A guess changes no answer: at each place the request's own sampler draws from the model's own distribution, and guesses
stand only as far as they are what was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fulmen_core.errors import UserError
from fulmen_core.runner import Runner, SequenceStep
from fulmen_serving.engine.sequence import SequenceState


class Proposer(Protocol):
    """Guesses how sequences go on."""

    def propose(self, wishes: Sequence[tuple[SequenceState, int]]) -> list[list[int]]:
        """Return for each sequence at most so many tokens that may follow what it knows; none if it has no idea."""
        ...

    def ended(self, state: SequenceState) -> None:
        """The sequence will not be asked about again. Idempotent."""
        ...

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        ...


class NGramProposer:
    """What followed the last time that the same few tokens stood in this sequence (prompt lookup).

    Args:
        longest, shortest: tokens that must be the same, the longest first.
    """

    def __init__(self, longest: int = 4, shortest: int = 2) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        # by arrival: how far a sequence is indexed, and where each n-gram was last followed by something
        self._indices: dict[int, tuple[int, dict[tuple[int, ...], int]]] = {}

    def propose(self, wishes: Sequence[tuple[SequenceState, int]]) -> list[list[int]]:
        """See `Proposer.propose`."""
        return [self._propose(state, count) for state, count in wishes]

    def _propose(self, state: SequenceState, count: int) -> list[int]:
        known = state.known
        done, index = self._indices.get(state.arrival, (0, {}))
        for end in range(done, len(known)):
            for size in self._sizes:
                if end >= size:
                    index[tuple(known[end - size : end])] = end
        self._indices[state.arrival] = (len(known), index)
        for size in self._sizes:
            if (at := index.get(tuple(known[-size:]))) is not None:
                return known[at : at + count]
        return []

    def ended(self, state: SequenceState) -> None:
        """See `Proposer.ended`."""
        self._indices.pop(state.arrival, None)

    def close(self) -> None:
        """See `Proposer.close`."""
        self._indices.clear()


class DraftModelProposer:
    """The likeliest tokens of a smaller model over the same vocabulary.

    Args:
        runner: the smaller model, with as many slots as sequences may run.

    Raises:
        UserError: the runner cannot take tokens back.
    """

    def __init__(self, runner: Runner) -> None:
        if runner.layout.rewind < runner.limits.draft_tokens:
            raise UserError("the draft model's runner cannot take tokens back", remedy="serve it with --backend cpu")
        self._runner = runner
        self._free = list(range(runner.limits.max_sequences))
        self._held: dict[int, _Held] = {}  # by arrival

    def propose(self, wishes: Sequence[tuple[SequenceState, int]]) -> list[list[int]]:
        """See `Proposer.propose`. A sequence beyond the draft model's context or slots has no guesses."""
        drafts: list[list[int]] = [[] for _ in wishes]
        live: list[tuple[int, _Held]] = []
        for index, (state, count) in enumerate(wishes):
            if count and len(state.known) + count <= self._runner.limits.max_context:
                held = self._held.get(state.arrival)
                if held is None:
                    if not self._free:
                        continue
                    held = self._held[state.arrival] = _Held(self._free.pop())
                held.take_back(state.known)
                live.append((index, held))
        rounds = 0
        while live:
            rows = self._feed([(held, [*wishes[index][0].known, *drafts[index]]) for index, held in live])
            for (index, _), token in zip(live, rows, strict=True):
                drafts[index].append(token)
            rounds += 1
            live = [(index, held) for index, held in live if rounds < wishes[index][1]]
        return drafts

    def ended(self, state: SequenceState) -> None:
        """See `Proposer.ended`."""
        if (held := self._held.pop(state.arrival, None)) is not None:
            self._runner.release(held.slot)
            self._free.append(held.slot)

    def close(self) -> None:
        """See `Proposer.close`."""
        self._runner.close()

    def _feed(self, targets: Sequence[tuple[_Held, list[int]]]) -> list[int]:
        """Bring each slot up to all of its tokens; return the likeliest token after each."""
        answers = [0] * len(targets)
        behind = list(range(len(targets)))
        while behind:
            budget, batch, taken = self._runner.limits.max_step_tokens, [], []
            for i in behind:
                held, tokens = targets[i]
                if new := tokens[len(held.tokens) : len(held.tokens) + budget]:
                    batch.append(SequenceStep(held.slot, len(held.tokens), new))
                    taken.append(i)
                    budget -= len(new)
            for i, step, logits_V in zip(taken, batch, self._runner.step(batch), strict=True):
                held, tokens = targets[i]
                held.tokens.extend(step.token_ids)
                if len(held.tokens) == len(tokens):
                    answers[i] = int(logits_V.argmax())
                    behind.remove(i)
        return answers


@dataclass(slots=True)
class _Held:
    """What a slot of the draft model holds of a sequence. The first `settled` tokens are not guesses."""

    slot: int
    tokens: list[int] = field(default_factory=list)
    settled: int = 0

    def take_back(self, known: Sequence[int]) -> None:
        """Forget guesses that did not stand, and the last known token, so that there is one to compute."""
        end = min(len(self.tokens), len(known) - 1)
        stands = next((i for i in range(self.settled, end) if self.tokens[i] != known[i]), end)
        del self.tokens[stands:]
        self.settled = stands
