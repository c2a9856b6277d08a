"""What runners with pages do alike: lay out their memory, find a step's pages, and refuse a step that does not fit.

Legend: S sequences in the step, N tokens of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fulmen_core.model.kv import CacheSpec
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


def paged_layout(
    cache: CacheSpec, limits: EngineLimits, *, page_tokens: int, block_tokens: int, batch_invariant: bool = False
) -> CacheLayout:
    """The layout of a runner whose full caches have pages and whose windows are rings of whole blocks.

    Args:
        cache: of the model.
        limits: of the runner, with the context that it reserves.
        page_tokens: positions of a page; fewer where the whole context is shorter.
        block_tokens: what rings, and pages shorter than `page_tokens`, are rounded up to.
        batch_invariant: as `CacheLayout.batch_invariant`.
    """
    windows = [group.window for group in cache.groups if group.window is not None]
    # what rounding a ring up to whole blocks leaves anyway may be taken back, too
    rewind = min((ring_tokens(w, limits, block_tokens) - w for w in windows), default=limits.max_context)
    layout = CacheLayout(
        slots=limits.slots,
        page_tokens=min(page_tokens, -(-limits.max_context // block_tokens) * block_tokens),
        rewind=rewind,
        batch_invariant=batch_invariant,
    )
    whole = layout.pages_for(limits.max_context)
    pages = layout.pages_for(limits.kv_tokens) if limits.kv_tokens else limits.max_sequences * whole
    return replace(layout, pages=max(pages, whole))


def ring_tokens(window: int, limits: EngineLimits, block_tokens: int) -> int:
    """Positions of the ring that holds a window and what may be taken back, in whole blocks."""
    return -(-(window + limits.draft_tokens) // block_tokens) * block_tokens


def pages_of(step: SequenceStep, layout: CacheLayout, limits: EngineLimits) -> Sequence[int]:
    """The pages that a step names, or those of its slot where it names none: see `SequenceStep.pages`."""
    if step.pages is not None:
        return step.pages
    each = layout.pages_for(limits.max_context)
    return range(step.slot * each, (step.slot + 1) * each)


def refuse_unfit(
    batch: Sequence[SequenceStep],
    tokens_N: NDArray[np.integer],
    pages_S: Sequence[Sequence[int]],
    *,
    limits: EngineLimits,
    layout: CacheLayout,
    vocab_size: int,
) -> None:
    """Check everything that kernels would take on trust, before anything is computed.

    Args:
        batch: the step.
        tokens_N: the token ids of all its sequences, in order.
        pages_S: the pages of each sequence: see `pages_of`.
        limits: of the runner.
        layout: of the runner.
        vocab_size: of the model.

    Raises:
        ValueError: a token, slot, page or position is not what `limits`, `layout` and the vocabulary allow.
    """
    counts_S = [len(step.token_ids) for step in batch]
    if not batch or 0 in counts_S:
        raise ValueError("a step needs at least one sequence, and each at least one token")
    if len(tokens_N) > limits.max_step_tokens:
        raise ValueError(f"{len(tokens_N)} tokens are more than the {limits.max_step_tokens} of a step")
    if tokens_N.min() < 0 or tokens_N.max() >= vocab_size:
        wrong = tokens_N.min() if tokens_N.min() < 0 else tokens_N.max()
        raise ValueError(f"token {wrong} is outside the {vocab_size} of the model")
    slots = [step.slot for step in batch]
    if len(slots) > limits.max_sequences:
        raise ValueError(f"{len(slots)} sequences are more than the {limits.max_sequences} of a step")
    if min(slots) < 0 or max(slots) >= layout.slots or len(set(slots)) < len(slots):
        raise ValueError(f"slots {slots} are not different ones of 0 to {layout.slots - 1}")
    for step, count, pages in zip(batch, counts_S, pages_S, strict=True):
        if step.start < 0 or step.start + count > limits.max_context:
            raise ValueError(f"position {step.start + count - 1} is outside the {limits.max_context} reserved")
        if not 1 <= step.wanted <= count:
            raise ValueError(f"{step.wanted} results are wanted of {count} tokens")
        if len(pages) < layout.pages_for(step.start + count):
            raise ValueError(f"{len(pages)} pages do not hold {step.start + count} tokens")
        refuse_outside("page", pages, layout.pages)


def refuse_outside(kind: str, numbers: Sequence[int], count: int) -> None:
    """Refuse a number that is not one of ``0 .. count - 1``.

    Raises:
        ValueError: one is not; `kind` says of what.
    """
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"{kind} {number} is not one of 0 to {count - 1}")
