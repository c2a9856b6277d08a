"""Drives a runner through random mixed steps, and holds what it answered against the model in float64.

Legend: T tokens of a sequence, V vocabulary, D model width, N tokens, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.feed_forward import MixtureFeedForward
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import SequenceStep

#: Where two experts' scores are closer than this, rounding decides between them and both choices are right.
ROUTING_TIE = 1e-5


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


class Expected(NamedTuple):
    """What a network makes of a sequence.

    Attributes:
        logits_TV: float64 or float32, as the network is.
        margin_T: the smallest margin of any choice of experts at each token.
        chosen_TX: those experts' ids, of all layers in a row, each layer's in order.
    """

    logits_TV: NDArray[np.floating]
    margin_T: NDArray[np.floating]
    chosen_TX: NDArray[np.integer]


@torch.inference_mode()
def expected(network: Transformer, tokens: list[int]) -> Expected:
    """Run the sequence as a whole."""
    output = network(torch.tensor([tokens]))
    margin_T = torch.ones(len(tokens), dtype=torch.float64)
    chosen = [torch.empty(len(tokens), 0, dtype=torch.int64)]
    routers = [block.ffn.router for block in network.blocks if isinstance(block.ffn, MixtureFeedForward)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        ranks_NE = scores_NE if router.bias is None else scores_NE + router.bias
        best_NK, experts_NK = ranks_NE.topk(router.top_k + 1)
        margin_T = torch.minimum(margin_T, best_NK[:, -2] - best_NK[:, -1])
        chosen.append(experts_NK[:, :-1].sort(1).values)
    logits_TV = network.logits(output.hidden_BTD)[0]
    return Expected(logits_TV.numpy(), margin_T.numpy(), torch.cat(chosen, 1).numpy())


def tolerances(exact: Expected, rounded: Expected, settled: int) -> NDArray[np.floating]:
    """How far off the logits of each settled token may be: `rounded`, which is PyTorch's float32, measures it.

    Now and then a token multiplies rounding ten times as much as others do: float32 need not be within 1e-4 there.
    Elsewhere 1e-4 is more than float32 needs.
    """
    error_T = np.abs(rounded.logits_TV[:settled] - exact.logits_TV[:settled]).max(1)
    return np.clip(1e-4, 3 * error_T, 8 * error_T.max(initial=0))


def assert_equal(
    network: Transformer,
    played: list[Played],
    label: str,
    tolerance: float = 1e-4,
    tie: float = ROUTING_TIE,
    in_float32: Transformer | None = None,
) -> int:
    """Compare with a network, up to the first token whose routing is a coin toss. Return how many logits were.

    Args:
        in_float32: the same network in float32. Where it chooses other experts it has tossed a coin, too; what it
            adds to logits takes the place of `tolerance`.
    """
    compared = 0
    for sequence in played:
        exact = expected(network, sequence.tokens)
        tossed_T = exact.margin_T < tie
        rounded = None if in_float32 is None else expected(in_float32, sequence.tokens)
        if rounded is not None:
            tossed_T |= (rounded.chosen_TX != exact.chosen_TX).any(1)
        settled = min([len(tossed_T), *np.flatnonzero(tossed_T).tolist()])
        tolerance_T = np.full(settled, tolerance) if rounded is None else tolerances(exact, rounded, settled)
        for position, logits_V in sequence.logits.items():
            if position < settled:
                compared += 1
                atol = tolerance_T[position]
                np.testing.assert_allclose(logits_V, exact.logits_TV[position], atol=atol, rtol=0, err_msg=label)
    return compared


def assert_equal_to_the_model(directory: Path, played: list[Played], label: str) -> int:
    """Compare with a model directory in float64."""
    network = load_model(directory, torch.float64)
    network.set_experts_implementation("dense")  # grouped products know no float64
    return assert_equal(network, played, label, in_float32=load_model(directory))
