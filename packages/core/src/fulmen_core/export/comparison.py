"""Does an artefact compute what its checkpoint computes? Runs it on a `Reference`, in mixed steps, and compares.

Legend: P compared positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.export.reference import Reference
from fulmen_core.generation import generate
from fulmen_core.runner import EngineLimits, Runner, SequenceStep
from fulmen_core.sampling import SamplingParams

#: Below this two tokens are alike, and either is a right greedy answer.
_TOKEN_TIE = 1e-5
#: A reduced precision may choose another expert where scores are closer than this: such tokens tell nothing of it.
_LOOSE_ROUTING = 0.01


def limits_for(reference: Reference) -> EngineLimits:
    """What a runner must be able to do to be compared."""
    longest = int(reference.lengths.max())
    answer = reference.prompts.shape[1] + reference.answers_GA.shape[1]
    return EngineLimits(max_sequences=8, max_context=max(longest, answer), max_step_tokens=512)


def compare(runner: Runner, reference: Reference) -> dict[str, Any]:
    """Compare what a runner answers with what the checkpoint answered.

    Returns:
        ``max_abs_diff`` of the logits, and ``max_abs_logit``, the largest of them; ``mean_kl``, the Kullback-Leibler
        divergence of the checkpoint's next token from the artefact's in nats, and ``top1_agreement``, over tokens whose
        experts a reduced precision does not change; ``greedy_equal``, whether each token of the artefact's greedy
        answers is the checkpoint's; and what was compared: ``logits_compared``, ``greedy_tokens``, ``set_aside`` of
        these, and two seeds.
    """
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    found = _play(runner, reference, np.random.default_rng(seed))
    logits_PV = np.stack([found[int(sequence), int(position)] for sequence, position in reference.positions_P2])
    kl_P = _kl(reference.logits_PV, logits_PV)
    same_P = logits_PV.argmax(1) == reference.logits_PV.argmax(1)
    judged_P = reference.routing_margin_P >= _LOOSE_ROUTING
    judged_P = judged_P if judged_P.any() else np.ones_like(judged_P)
    count = reference.answers_GA.shape[1]
    answers = generate(runner, reference.prompts.tolist(), SamplingParams(temperature=0, max_tokens=count))
    judged = zip(answers, reference.answers_GA, reference.margin_GA, strict=True)
    right, wrong, aside = np.sum([_judge(*one) for one in judged], axis=0)
    return {
        "max_abs_diff": float(np.abs(logits_PV - reference.logits_PV).max()),
        "max_abs_logit": float(np.abs(reference.logits_PV).max()),
        "mean_kl": float(kl_P[judged_P].mean()),
        "top1_agreement": float(same_P[judged_P].mean()),
        "greedy_equal": int(wrong) == 0,
        "logits_compared": len(logits_PV),
        "greedy_tokens": int(right + wrong),
        "set_aside": int(aside),
        "prompts_seed": int(reference.seed),
        "steps_seed": seed,
    }


def _play(
    runner: Runner, reference: Reference, random: np.random.Generator
) -> Mapping[tuple[int, int], NDArray[np.float32]]:
    """Run the sequences side by side in random chunks and single tokens: logits by sequence and position."""
    sequences = reference.sequences()
    wanted: list[set[int]] = [set() for _ in sequences]
    for sequence, position in reference.positions_P2:
        wanted[sequence].add(int(position))
    found: dict[tuple[int, int], NDArray[np.float32]] = {}
    waiting = list(range(len(sequences)))
    running: dict[int, int] = {}  # slot: sequence
    done = [0] * len(sequences)
    limits = runner.limits
    while waiting or running:
        for slot in range(limits.max_sequences):
            if slot not in running and waiting:
                running[slot] = waiting.pop(0)
        steps, budget = [], limits.max_step_tokens
        for slot in random.permutation(list(running)).tolist():
            number = running[slot]
            begin = done[number]
            end = begin + min(_chunk(begin, len(sequences[number]), wanted[number], random), budget)
            if end > begin:
                steps.append(SequenceStep(slot, begin, sequences[number][begin:end]))
                done[number] = end
                budget -= end - begin
        for step, logits_V in zip(steps, runner.step(steps), strict=True):
            number = running[step.slot]
            if done[number] - 1 in wanted[number]:
                found[number, done[number] - 1] = np.array(logits_V)
        for slot, number in list(running.items()):
            if done[number] == len(sequences[number]):
                runner.release(slot)
                del running[slot]
    return found


def _chunk(begin: int, length: int, wanted: set[int], random: np.random.Generator) -> int:
    """Tokens to compute next: one, or a random number, but no further than the next wanted position."""
    if random.random() < 0.3:
        return 1
    border = min((position + 1 for position in wanted if position >= begin), default=length)
    return int(random.integers(1, border - begin + 1)) if random.random() < 0.5 else border - begin


def _kl(expected_PV: NDArray[np.float32], found_PV: NDArray[np.float32]) -> NDArray[np.float64]:
    expected, found = (_log_softmax(logits.astype(np.float64)) for logits in (expected_PV, found_PV))
    divergence: NDArray[np.float64] = (np.exp(expected) * (expected - found)).sum(1)
    return divergence


def _log_softmax(logits_PV: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits_PV - logits_PV.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def _judge(answer: Sequence[int], expected_A: NDArray[np.int32], margin_A: NDArray[np.float32]) -> tuple[int, int, int]:
    """How many tokens of `answer` are right, wrong, and cannot be judged: what follows a wrong or undecided token."""
    for index, (token, expected, margin) in enumerate(zip(answer, expected_A, margin_A, strict=True)):
        if margin < 0:
            return index, 0, len(answer) - index
        if token != expected:
            tie = margin < _TOKEN_TIE
            return index, int(not tie), len(answer) - index - int(not tie)
    return len(answer), 0, 0
