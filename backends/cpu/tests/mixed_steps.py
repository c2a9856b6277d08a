"""Random mixed steps over a runner: what the tests hold against a model that is run as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core.runner import SequenceStep

AnyRunner = CpuRunner | NativeRunner


@dataclass
class Played:
    """A sequence that was run: its adapter, its tokens, and the logits it got after some of them."""

    adapter: str | None = None
    tokens: list[int] = field(default_factory=list)
    logits: dict[int, np.ndarray] = field(default_factory=dict)


def drive(
    runner: AnyRunner,
    random: np.random.Generator,
    steps: int,
    vocabulary: int,
    folders: Mapping[str, Path] | None = None,
    *,
    every: bool = False,
) -> list[Played]:
    """Run random mixed steps, chunks and single tokens, with slot reuse, poisoning what is released.

    With `folders` some sequences have adapters; those that no sequence has are unloaded and loaded again. With `every`
    results are wanted of every token, else of the last ones.
    """
    limits, folders = runner.limits, folders or {}
    numbers: dict[str, int] = {}
    played: list[Played] = []
    current: dict[int, Played] = {}
    for slot in range(limits.max_sequences):
        poison(runner, slot)
    for _ in range(steps):
        budget = limits.max_step_tokens
        batch = []
        for slot in random.permutation(limits.max_sequences).tolist():
            if slot in current and (len(current[slot].tokens) == limits.max_context or random.random() < 0.1):
                runner.release(slot)
                poison(runner, slot)
                del current[slot]
            if slot not in current:
                current[slot] = Played([None, *folders][len(played) % (len(folders) + 1)])
                played.append(current[slot])
            sequence = current[slot]
            room = min(budget, limits.max_context - len(sequence.tokens))
            if room == 0 or random.random() < 0.25:
                continue
            if sequence.adapter is not None and sequence.adapter not in numbers:
                unused = [name for name in numbers if name not in {other.adapter for other in current.values()}]
                if len(numbers) == limits.adapters and not unused:
                    continue
                if unused:
                    runner.unload_adapter(numbers.pop(unused[0]))
                numbers[sequence.adapter] = runner.load_adapter(folders[sequence.adapter])
            count = 1 if sequence.tokens and random.random() < 0.5 else int(random.integers(1, room + 1))
            new = random.integers(0, vocabulary, count).tolist()
            adapter = 0 if sequence.adapter is None else numbers[sequence.adapter]
            wanted = count if every else 1
            batch.append(SequenceStep(slot, len(sequence.tokens), new, wanted=wanted, adapter=adapter))
            sequence.tokens.extend(new)
            budget -= count
        if not batch:
            continue
        logits_RV = runner.step(batch)
        assert logits_RV.dtype == np.float32
        assert logits_RV.shape == (sum(step.wanted for step in batch), vocabulary)
        row = 0
        for step in batch:
            end = step.start + len(step.token_ids)
            for position in range(end - step.wanted, end):
                current[step.slot].logits[position] = logits_RV[row]
                row += 1
    return [sequence for sequence in played if sequence.tokens]


def poison(runner: AnyRunner, slot: int) -> None:
    """Fill all that `slot` holds with NaN, as an earlier user might have left it."""
    each = runner.layout.pages_for(runner.limits.max_context)
    runner.poison(slot, range(slot * each, (slot + 1) * each))
