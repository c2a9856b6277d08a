"""Offline generation: many prompts over one `Runner`, with continuous batching and chunked prefill, no server.

One rule and no phases: a sequence has known tokens and computed tokens, and each step hands out its token budget to
close the gaps, first to the sequences that lack one token (they decode), then to prompts. A freed slot takes the next
prompt at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits, Runner, SequenceStep
from fulmen_core.sampling import Sampler, SamplingParams
from fulmen_core.softmax_draw import draw_of


@dataclass(slots=True)
class _Sequence:
    index: int
    prompt: Sequence[int]
    sampler: Sampler
    slot: int
    answer: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def missing(self) -> int:
        return len(self.prompt) + len(self.answer) - self.computed

    def tokens(self, count: int) -> Sequence[int]:
        """The next `count` tokens to compute. Only a sequence without an answer misses more than its last token."""
        return self.prompt[self.computed : self.computed + count] if not self.answer else self.answer[-1:]


def generate(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    stop_ids: Collection[int] = (),
) -> list[list[int]]:
    """Answer every prompt and return the new token ids in the order of the prompts.

    An answer ends with the first id of `stop_ids`, *which it includes* (so that a caller can tell a finished answer
    from a cut one), or after `params.max_tokens`, or when prompt and answer fill the runner's context. With a seed,
    request `i` draws from ``(seed, i)``: equal prompts get different answers, and an answer does not depend on how the
    batch was scheduled. `params.stop` is not applied: there is no text here.

    Raises:
        UserError: a prompt is empty, leaves no room for an answer, or holds an id outside the vocabulary.
    """
    limits = runner.limits
    for index, prompt in enumerate(prompts):
        _check_prompt(index, prompt, runner.vocab_size, limits.max_context)
    unseeded, draw = replace(params, seed=None), draw_of(runner)
    waiting = deque(range(len(prompts)))
    running: list[_Sequence] = []
    # More sequences than step tokens could not all decode in one step.
    free_slots = list(range(min(limits.max_sequences, limits.max_step_tokens)))[::-1]
    answers: list[list[int]] = [[] for _ in prompts]
    try:
        while waiting or running:
            while waiting and free_slots:
                index = waiting.popleft()
                seed = None if params.seed is None else (params.seed, index)
                running.append(_Sequence(index, prompts[index], Sampler(unseeded, seed), free_slots.pop()))
            planned = _plan(running, limits)
            logits_SV = runner.step([SequenceStep(s.slot, s.computed, s.tokens(count)) for s, count in planned])
            for (sequence, count), logits_V in zip(planned, logits_SV, strict=True):
                sequence.computed += count
                if sequence.missing:
                    continue  # the prompt goes on: these logits predict a token that is known
                sequence.answer.append(sequence.sampler.sample(logits_V, draw=draw))
                full = len(sequence.prompt) + len(sequence.answer) >= limits.max_context
                if sequence.answer[-1] in stop_ids or len(sequence.answer) >= params.max_tokens or full:
                    running.remove(sequence)
                    runner.release(sequence.slot)
                    free_slots.append(sequence.slot)
                    answers[sequence.index] = sequence.answer
    finally:
        for sequence in running:  # an error or Ctrl-C: the runner may be used again
            runner.release(sequence.slot)
    return answers


def _check_prompt(index: int, prompt: Sequence[int], vocab_size: int, max_context: int) -> None:
    where = f"prompt {index}"
    if not len(prompt):
        raise UserError("there is no token", where=where)
    if len(prompt) >= max_context:
        raise UserError(
            f"{len(prompt)} tokens leave no room for an answer in a context of {max_context}",
            where=where,
            remedy="shorten the prompt or load the model with a larger max_context",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise UserError(
            f"a token id lies outside the vocabulary of {vocab_size}",
            where=where,
            remedy="use the tokenizer of this model",
        )


def _plan(running: Sequence[_Sequence], limits: EngineLimits) -> list[tuple[_Sequence, int]]:
    """Hand out the step's tokens: decoding sequences first, then prompts in order of arrival."""
    budget = limits.max_step_tokens
    planned: list[tuple[_Sequence, int]] = []
    for sequence in sorted(running, key=lambda s: s.missing > 1):
        count = min(sequence.missing, budget)
        if count:
            planned.append((sequence, count))
            budget -= count
    return planned
