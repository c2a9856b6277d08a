"""Random mixed steps over a runner of this backend, held against the model in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_core.export.reference import Reference
from fulmen_testing import player
from fulmen_testing.agreement import assert_equal, in_float64, settled_logits

#: Where two experts' scores are closer than this, rounding decides between them and both choices are right.
ROUTING_TIE = 1e-5


def player_of(runner: OpenVinoRunner, *, several: bool = True) -> player.Player:
    """A player of fresh randomness, under whose sequences lies what earlier ones might have left there."""
    random = np.random.default_rng()

    def poison(slot: int, pages: list[int]) -> None:
        for window, arrays in runner._kv._arrays.items():
            blocks = pages
            if window is not None:
                each = runner._kv.rings[window].blocks
                blocks = list(range(slot * each, (slot + 1) * each))
            for array in arrays:
                floats = array.view(np.float32)
                floats[blocks] = random.normal(scale=100, size=(1, floats.shape[1]))

    return player.Player(runner, random, several=several, poison=poison)


def drive(runner: OpenVinoRunner, steps: int) -> list[player.Sequence]:
    """Run random mixed steps and close the runner."""
    played = player_of(runner).mix(steps)
    runner.close()
    return played


def expected_logits(directory: Path, tokens: Sequence[int]) -> NDArray[np.float64]:
    """The model's logits in float64 after every token: NaN from the first on whose routing is a coin toss."""
    return settled_logits(in_float64(directory), tokens, ROUTING_TIE)


def rounding(directory: Path, reference: Reference) -> float:
    """How far off what the checkpoint answered in float32 is from float64, at most, where no expert is tossed for."""
    errors = [0.0]
    for number, tokens in enumerate(reference.sequences()):
        exact_TV = expected_logits(directory, tokens)
        for row, (sequence, position) in enumerate(reference.positions_P2):
            if sequence == number and not np.isnan(exact_TV[position]).any():
                errors.append(float(np.abs(reference.logits_PV[row] - exact_TV[position]).max()))
    return max(errors)


def assert_equal_to_the_model(directory: Path, played: Iterable[player.Sequence], label: str) -> int:
    """Compare with a model directory in float64. Return how many results were held against it."""
    return assert_equal(in_float64(directory), played, label, tie=ROUTING_TIE, growing=True)
