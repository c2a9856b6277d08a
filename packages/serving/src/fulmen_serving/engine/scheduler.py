"""Scheduling as pure functions. One rule and no phases: each step hands out its token budget to close the gaps.

A gap is what a sequence knows and has not computed: one token while it decodes, many while its prompt goes in. That one
rule is continuous batching and chunked prefill (as in vLLM, which has no separate prefill and decode steps either).
"""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits


def divide_budget(gaps: Sequence[int], budget: int) -> list[int]:
    """Return how many tokens each sequence computes in this step, in the order of `gaps`, which is that of arrival.

    Gaps of one come first: an answer that is being read never waits behind another's long prompt. The rest goes to the
    others in order of arrival, so that a prompt is finished before the next one starts and none starves.
    """
    counts = [0] * len(gaps)
    for index in sorted(range(len(gaps)), key=lambda i: gaps[i] > 1):
        counts[index] = min(gaps[index], budget)
        budget -= counts[index]
    return counts


def check_limits(limits: EngineLimits) -> None:
    """Refuse limits under which a decoding sequence could miss a step.

    Raises:
        UserError: a limit is not positive, or a step has fewer tokens than there are slots.
    """
    for name in ("max_sequences", "max_context", "max_step_tokens"):
        if getattr(limits, name) < 1:
            raise UserError(f"{name} {getattr(limits, name)} is less than 1")
    if limits.max_step_tokens < limits.max_sequences:
        raise UserError(
            f"a step of {limits.max_step_tokens} tokens cannot advance {limits.max_sequences} sequences",
            remedy="raise max_step_tokens or lower max_sequences",
        )
