"""Scheduling as pure functions. One rule and no phases: each step hands out its token budget to close the gaps.

A gap is what a sequence knows and has not computed: one token while it decodes, many while its prompt goes in. That one
rule is continuous batching, chunked prefill, what a found prefix saves, and speculation (as in vLLM, which has no
separate prefill and decode steps either).
"""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.sequence import SequenceState


def divide_budget(gaps: Sequence[int], budget: int) -> list[int]:
    """Return how many tokens each sequence computes in this step, in the order of `gaps`, which is that of rank.

    Gaps of one come first: an answer that is being read never waits behind another's long prompt. The rest goes to the
    others in order of rank, so that a prompt is finished before the next one starts and none starves.
    """
    counts = [0] * len(gaps)
    for index in sorted(range(len(gaps)), key=lambda i: gaps[i] > 1):
        counts[index] = min(gaps[index], budget)
        budget -= counts[index]
    return counts


def open_tokens(state: SequenceState, chunk: int) -> int:
    """Return how many tokens of the gap of `state` one step may compute: not beyond a mark.

    With a `chunk` the cuts do not depend on what else runs, so that results do not either: prompts are computed in
    whole chunks of that many tokens, answers (of a preempted sequence) token by token, as they were at first.
    """
    tokens = state.gap
    if state.marks:
        tokens = min(tokens, state.marks[0] - state.computed)
    if chunk:
        prompt = len(state.prompt_T) - state.computed
        tokens = min(tokens, prompt, chunk - state.computed % chunk) if prompt > 0 else 1
    return tokens


def cheapest_victim(running: Sequence[SequenceState], rank: tuple[int, int]) -> SequenceState | None:
    """Return the sequence to preempt for one of `rank`, or None: none of better priority is ever preempted for it.

    Of the lowest priority, the one with the fewest tokens to compute again; among equals the last that came.
    """
    candidates = [state for state in running if state.request.priority >= rank[0]]
    return max(candidates, key=lambda s: (s.request.priority, -s.computed, s.arrival), default=None)


#: Limits that may be 0, and the options of `fulmen serve` that set them.
_NOT_NEGATIVE = {"cached_sequences": "--cached-prefixes", "kv_tokens": "--kv-tokens", "draft_tokens": "--draft-tokens"}


def check_limits(limits: EngineLimits) -> None:
    """Refuse limits under which a decoding sequence could miss a step.

    Raises:
        UserError: a limit is not positive, a step has fewer tokens than there are slots, or the caches hold no context.
    """
    for name in ("max_sequences", "max_context", "max_step_tokens"):
        if getattr(limits, name) < 1:
            raise UserError(f"{name} {getattr(limits, name)} is less than 1")
    for name, option in _NOT_NEGATIVE.items():
        if getattr(limits, name) < 0:
            raise UserError(f"{name} {getattr(limits, name)} is negative", remedy=f"give {option} 0 or more")
    if 0 < limits.kv_tokens < limits.max_context:
        raise UserError(
            f"kv_tokens {limits.kv_tokens} is less than one context of {limits.max_context} tokens",
            remedy="raise --kv-tokens or lower --max-context",
        )
    if limits.max_step_tokens < limits.max_sequences:
        raise UserError(
            f"a step of {limits.max_step_tokens} tokens cannot advance {limits.max_sequences} sequences",
            remedy="raise max_step_tokens or lower max_sequences",
        )
