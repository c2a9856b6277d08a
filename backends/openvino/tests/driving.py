"""Random mixed steps over a runner, and the model run as a whole in float64 that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_core.export.reference import Reference
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.runner import SequenceStep

#: Where two experts' scores are closer than this, rounding decides between them and both choices are right.
ROUTING_TIE = 1e-5


@dataclass
class Played:
    """A sequence that was run: its tokens, and the logits it got after some of them."""

    tokens: list[int] = field(default_factory=list)
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


def poison(runner: OpenVinoRunner, slot: int) -> None:
    """Fill all that a slot and its own pages hold with what an earlier sequence might have left there."""
    random = np.random.default_rng()
    each = runner.layout.pages_for(runner.limits.max_context)
    for window, arrays in runner._kv._arrays.items():
        count = each if window is None else runner._kv.rings[window].blocks
        for array in arrays:
            floats = array.view(np.float32)
            floats[slot * count : (slot + 1) * count] = random.normal(scale=100, size=(1, floats.shape[1]))


def drive(runner: OpenVinoRunner, random: np.random.Generator, steps: int) -> list[Played]:
    """Run random mixed steps, chunks and single tokens, with slot reuse, poisoning what is released."""
    limits = runner.limits
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
                current[slot] = Played()
                played.append(current[slot])
            tokens = current[slot].tokens
            room = min(budget, limits.max_context - len(tokens))
            if room == 0 or random.random() < 0.25:
                continue
            count = 1 if tokens and random.random() < 0.5 else int(random.integers(1, room + 1))
            new = random.integers(0, runner.vocab_size, count).tolist()
            batch.append(SequenceStep(slot, len(tokens), new, wanted=int(random.integers(1, count + 1))))
            tokens.extend(new)
            budget -= count
        if batch:
            run(runner, batch, current)
    return [sequence for sequence in played if sequence.tokens]


def run(runner: OpenVinoRunner, batch: Sequence[SequenceStep], sequences: dict[int, Played]) -> None:
    """Run a step and note its logits with the sequences in its slots."""
    logits_RV = runner.step(batch)
    assert logits_RV.dtype == np.float32
    assert logits_RV.shape == (sum(step.wanted for step in batch), runner.vocab_size)
    row = 0
    for step in batch:
        end = step.start + len(step.token_ids)
        for position in range(end - step.wanted, end):
            sequences[step.slot].logits[position] = logits_RV[row]
            row += 1


@torch.inference_mode()
def expected_logits(directory: Path, tokens: Sequence[int]) -> tuple[NDArray[np.float64], int]:
    """The model's logits [T, V] in float64, and the first position whose routing is a coin toss."""
    model = load_model(directory, torch.float64)
    output = model(torch.tensor([tokens]))
    settled = len(tokens)
    routers = [block.ffn.router for block in model.blocks if isinstance(block.ffn, MixtureFeedForward)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        if router.top_k == logits_NE.shape[1]:
            continue
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        best_NK = (scores_NE if router.bias is None else scores_NE + router.bias).topk(router.top_k + 1).values
        tossed = (best_NK[:, -2] - best_NK[:, -1] < ROUTING_TIE).nonzero()
        settled = min([settled, *tossed.flatten().tolist()])
    logits: NDArray[np.float64] = model.logits(output.hidden_BTD)[0].numpy()
    return logits, settled


def rounding(directory: Path, reference: Reference) -> float:
    """How far off what the checkpoint answered in float32 is from float64, at most, where no expert is tossed for."""
    errors = [0.0]
    for number, tokens in enumerate(reference.sequences()):
        exact_TV, settled = expected_logits(directory, tokens)
        for row, (sequence, position) in enumerate(reference.positions_P2):
            if sequence == number and position < settled:
                errors.append(float(np.abs(reference.logits_PV[row] - exact_TV[position]).max()))
    return max(errors)


def assert_equal_to_the_model(directory: Path, played: Sequence[Played], label: str) -> None:
    """Compare with float64, up to the first token whose routing is a coin toss."""
    for sequence in played:
        expected_TV, settled = expected_logits(directory, sequence.tokens)
        for position, logits_V in sequence.logits.items():
            if position < settled:
                atol = 1e-4 * max(1, np.abs(expected_TV[position]).max() / 10)
                np.testing.assert_allclose(logits_V, expected_TV[position], atol=atol, rtol=0, err_msg=label)
