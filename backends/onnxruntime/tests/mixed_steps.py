"""Drives a runner through random mixed steps, and holds what it answered against the model in float64.

Legend: T tokens of a sequence, V vocabulary, D model width, N tokens, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import SequenceStep

ROUTING_TIE = 1e-4  # of scores: what float32 has added to them after some layers may decide below it


@dataclass
class Played:
    """A sequence that was run: its tokens, and the logits it got after some of them."""

    tokens: list[int] = field(default_factory=list)
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def cut(self, length: int) -> None:
        """Take tokens back."""
        del self.tokens[length:]
        self.logits = {position: logits_V for position, logits_V in self.logits.items() if position < length}


def poison(runner: OnnxRunner, slot: int) -> None:
    """Make all that lies in a slot's caches poisonous: a released sequence must not be read."""
    row = runner._rows.slots.index(slot)
    for pair in runner._kv.arrays:
        for array in pair:
            array[row] = np.nan


def run(runner: OnnxRunner, batch: list[SequenceStep], sequences: dict[int, Played]) -> None:
    """Run a step whose tokens are in `sequences` already, and keep what it answers."""
    rows = iter(runner.step(batch))
    for step in batch:
        end = step.start + len(step.token_ids)
        for position in range(end - step.wanted, end):
            logits_V = next(rows)
            assert logits_V.dtype == np.float32
            sequences[step.slot].logits[position] = logits_V
    assert next(rows, None) is None


def drive(runner: OnnxRunner, random: np.random.Generator, steps: int) -> list[Played]:
    """Run random mixed steps with slot reuse, poisoning what is released."""
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
            wanted = 1 if random.random() < 0.7 else int(random.integers(1, min(count, 5) + 1))
            batch.append(SequenceStep(slot, len(tokens), new, wanted=wanted))
            tokens.extend(new)
            budget -= count
        if batch:
            run(runner, batch, current)
    return [sequence for sequence in played if sequence.tokens]


@torch.inference_mode()
def expected(network: Transformer, tokens: list[int]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The network's logits [T, V], and the smallest margin of any choice of experts at each token [T]."""
    output = network(torch.tensor([tokens]))
    margin_T = torch.ones(len(tokens), dtype=torch.float64)
    routers = [block.ffn.router for block in network.blocks if isinstance(block.ffn, MixtureFeedForward)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        ranks_NE = scores_NE if router.bias is None else scores_NE + router.bias
        best_NK = ranks_NE.topk(router.top_k + 1).values
        margin_T = torch.minimum(margin_T, best_NK[:, -2] - best_NK[:, -1])
    return network.logits(output.hidden_BTD)[0].numpy(), margin_T.numpy()


def assert_equal(
    network: Transformer, played: list[Played], label: str, tolerance: float = 1e-4, tie: float = ROUTING_TIE
) -> int:
    """Compare with a network, up to the first token whose routing is a coin toss. Return how many logits were."""
    compared = 0
    for sequence in played:
        expected_TV, margin_T = expected(network, sequence.tokens)
        settled = min([len(margin_T), *np.flatnonzero(margin_T < tie).tolist()])
        for position, logits_V in sequence.logits.items():
            if position < settled:
                compared += 1
                np.testing.assert_allclose(logits_V, expected_TV[position], atol=tolerance, rtol=0, err_msg=label)
    return compared


def assert_equal_to_the_model(directory: Path, played: list[Played], label: str) -> int:
    """Compare with a model directory in float64."""
    network = load_model(directory, torch.float64)
    network.set_experts_implementation("dense")  # grouped products know no float64
    return assert_equal(network, played, label)
