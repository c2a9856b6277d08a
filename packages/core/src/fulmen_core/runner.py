"""The contract between engine and backend: a runner executes one step over many sequences, each with its cache slot.

Legend: S sequences in the step, V vocabulary. Arrays are NumPy, so that a runner needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fulmen_core.model.kv import CacheSpec


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine will ask for at most. A runner sizes its memory from these and refuses nothing later."""

    max_sequences: int = 16  # cache slots
    max_context: int = 2048  # tokens of one sequence, prompt and answer
    max_step_tokens: int = 512  # tokens of one step, over all sequences
    threads: int = 0  # of a runtime with a pool of its own; 0: its choice. PyTorch's threads are the process's


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """The share of one sequence in a step: compute `token_ids` at positions ``start .. start+len-1`` of `slot`.

    ``start == 0`` begins a new sequence in the slot. A decode step has one token, a prefill chunk has many: there are
    no phases.
    """

    slot: int
    start: int
    token_ids: Sequence[int]


class Runner(Protocol):
    """Runs a loaded model. Slots are numbered ``0 .. limits.max_sequences-1``; the engine owns their assignment."""

    cache: CacheSpec
    limits: EngineLimits
    vocab_size: int

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step and return the logits after the *last* token of each sequence, float32 ``[S, V]``."""
        ...

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        ...

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        ...
