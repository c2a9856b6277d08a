"""Learning-rate schedules: pure functions of the step that return the factor on every group's peak learning rate.

In: step and total, both counted in optimizer steps. Out: a factor in (0, 1]. May import: the standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Shares of all steps in the initial, the middle and the fast-decay stage. The report fixes only the last one, at about
#: 12.5 % (section 3.2); the split of the rest is ours.
STAGE_SHARES = (0.55, 0.325, 0.125)


def stage_ends(total: int, shares: Sequence[float] = STAGE_SHARES) -> tuple[int, ...]:
    """The step after the last one of each stage; the last entry is `total`.

    Raises:
        ValueError: the shares are not positive or do not sum to 1.
    """
    if any(share <= 0 for share in shares) or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ValueError(f"the shares of the stages must be positive and sum to 1, not {tuple(shares)}")
    ends = [round(total * sum(shares[: index + 1])) for index in range(len(shares))]
    return (*ends[:-1], total)


def stage_of(step: int, ends: Sequence[int]) -> int:
    """The number of the stage, from 0, that `step` lies in."""
    return next((index for index, end in enumerate(ends) if step < end), len(ends) - 1)


def warm_up(step: int, warmup: int) -> float:
    """Linear from ``1/warmup`` at step 0 to 1 at step ``warmup-1``; 1 from then on."""
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0


def constant(step: int, total: int, *, warmup: int = 0) -> float:
    """Warm-up, then 1 (`total` is there so that every schedule is called alike)."""
    del total
    return warm_up(step, warmup)


def cosine(step: int, total: int, *, warmup: int = 0, floor: float = 0.0) -> float:
    """Warm-up, then half a cosine from 1 down to `floor` at the last step."""
    if step < warmup:
        return warm_up(step, warmup)
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def three_stage(
    step: int,
    total: int,
    *,
    warmup: int = 0,
    shares: Sequence[float] = STAGE_SHARES,
    plateau: float = 0.5,
    floor: float = 0.02,
) -> float:
    """The schedule of the Yi-Lightning report, section 3.2, made concrete.

    Stage 1: linear warm-up, then half a cosine from the peak to `plateau` (the report: "half the peak"). Stage 2: hold
    `plateau`. Stage 3: linear from `plateau` to `floor`, which it reaches at the last step.
    """
    first, second, _ = stage_ends(total, shares)
    if step < first:
        return cosine(step, first, warmup=min(warmup, first), floor=plateau)
    if step < second:
        return plateau
    progress = (step - second + 1) / (total - second)
    return plateau + (floor - plateau) * progress
