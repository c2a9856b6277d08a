"""The contract between engine and backend: a runner executes one step over many sequences, each with its cache.

A sequence has a slot, which holds its window caches, and pages, which hold its full caches; both are numbers that the
engine gives out. A runner without pages keeps everything of a sequence in its slot.

Legend: S sequences in the step, R tokens of the step whose results are wanted, V vocabulary, D model width. Arrays are
NumPy, so that a runner needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fulmen_core.model.kv import CacheSpec


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine will ask for at most. A runner sizes its memory from these and refuses nothing later."""

    max_sequences: int = 16  # that run at once
    max_context: int = 2048  # tokens of one sequence, prompt and answer
    max_step_tokens: int = 512  # tokens of one step, over all sequences
    threads: int = 0  # of a runtime with a pool of its own; 0: its choice. PyTorch's threads are the process's
    cached_sequences: int = 0  # slots beyond `max_sequences`, in which prefixes are kept
    kv_tokens: int = 0  # tokens that all full caches hold together; 0: whole contexts for all that run at once
    draft_tokens: int = 0  # tokens of a sequence that a step may compute and take back
    adapters: int = 0  # that are loaded at once; 0: none are served
    adapter_rank: int = 64  # the largest rank of an adapter

    @property
    def slots(self) -> int:
        """Slots for what runs and for what is kept."""
        return self.max_sequences + self.cached_sequences


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """How a runner keeps sequences.

    Attributes:
        slots: numbered from 0; each holds the window caches of one sequence, and its full caches if there are no pages.
        page_tokens: positions in a page of the full caches; 0: there are no pages.
        pages: numbered from 0, shared by all sequences.
        rewind: tokens that may be taken back from the end of a sequence, however long, counted from the longest that it
            was; any number while it was no longer than the smallest window and `rewind` together.
        batch_invariant: whether a sequence's results are the same bits whatever else is in the step.
    """

    slots: int
    page_tokens: int = 0
    pages: int = 0
    rewind: int = 0
    batch_invariant: bool = False

    def pages_for(self, tokens: int) -> int:
        """Pages that a sequence of `tokens` tokens needs."""
        return -(-tokens // self.page_tokens) if self.page_tokens else 0


class SequenceStep(NamedTuple):
    """The share of one sequence in a step: compute `token_ids` at positions ``start .. start+len-1`` of `slot`.

    A decode step has one token, a prefill chunk has many: there are no phases. What lies at `start` and beyond is
    overwritten: that begins a new sequence (``start == 0``) or takes tokens back.

    Attributes:
        pages: of the full caches, at least ``layout.pages_for(start + len)``. None: those that would be the slot's own
            if pages were dealt out evenly, ``slot * n .. slot * n + n - 1``, for callers who share nothing.
        wanted: results are wanted of the last so many tokens.
        adapter: 0 for the model alone, else a number of `Runner.load_adapter`. All that a slot and its pages hold of a
            sequence was computed with the adapter of its steps: a sequence keeps it from its first token on.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    pages: Sequence[int] | None = None
    wanted: int = 1
    adapter: int = 0


class Runner(Protocol):
    """Runs a loaded model. The engine owns the assignment of slots and pages."""

    cache: CacheSpec
    layout: CacheLayout
    limits: EngineLimits
    vocab_size: int

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step and return the logits after the wanted tokens, float32 ``[R, V]``, in order.

        Raises:
            ValueError: a sequence's adapter is not loaded; nothing was computed.
        """
        ...

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but return the final normed hidden states of the wanted tokens, float32 ``[R, D]``.

        Raises:
            CapabilityError: the backend cannot.
        """
        ...

    def copy_slot(self, source: int, target: int, tokens: int) -> None:
        """Make `target` hold the `tokens` tokens that `source` holds: windows, and all else if there are no pages."""
        ...

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` what page `source` is."""
        ...

    def load_adapter(self, directory: Path) -> int:
        """Load the LoRA adapter in a PEFT folder beside those that are loaded, while no step runs.

        Returns: its number for `SequenceStep.adapter`, the lowest free one of 1 to ``limits.adapters``.

        Raises:
            UserError, CorruptArtefact: the folder is no whole adapter, or not one that fits the model.
            CapabilityError: the backend serves no adapters.
            ValueError: ``limits.adapters`` are loaded already.
            MemoryError: there is not enough memory.
        """
        ...

    def unload_adapter(self, number: int) -> None:
        """Give an adapter's memory back and its number free, while no step runs. Idempotent."""
        ...

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        ...

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        ...
