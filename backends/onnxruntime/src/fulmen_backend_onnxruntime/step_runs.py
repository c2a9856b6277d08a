"""Divides a step into runs of the graph. A run is a rectangle of sequences and tokens; where it is padded, it works in
vain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fulmen_core.runner import SequenceStep

#: Chunks run together while so much of the rectangle is tokens.
_FILLED = 0.8


def runs_of(batch: Sequence[SequenceStep], *, ragged: bool, room: int) -> Iterator[list[SequenceStep]]:
    """Sequences with one token together, then chunks of like lengths together.

    Args:
        batch: the step.
        ragged: whether chunks of sequences that go on may run together, too; those that begin always may.
        room: positions of the caches, in which a padded row must have its place.
    """
    single = [step for step in batch if len(step.token_ids) == 1]
    if single:
        yield single
    if len(single) == len(batch):
        return
    chunks = [step for step in batch if len(step.token_ids) > 1]
    if not ragged:
        yield from ([step] for step in chunks if step.start > 0)
        chunks = [step for step in chunks if step.start == 0]
    group: list[SequenceStep] = []
    for step in sorted(chunks, key=lambda step: len(step.token_ids)):
        # the last of a group is the longest, to which the others are padded
        length = len(step.token_ids)
        filled = sum(len(other.token_ids) for other in group) + length
        fits = all(other.start + length <= room for other in group)
        if group and not (fits and filled >= _FILLED * (len(group) + 1) * length):
            yield group
            group = []
        group.append(step)
    if group:
        yield group
