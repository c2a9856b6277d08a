"""Random mixed steps over a runner of this backend, held against the model in float64."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.model.checkpoint import load_model
from fulmen_testing.agreement import assert_equal, in_float64
from fulmen_testing.player import Player, Sequence

#: Where two experts' scores are closer than this, rounding decides between them and both choices are right.
ROUTING_TIE = 1e-5


def player_of(runner: OnnxRunner, *, several: bool = True) -> Player:
    """A player of fresh randomness, under whose sequences lie NaNs."""

    def poison(slot: int, pages: list[int]) -> None:
        assert not pages
        row = runner._rows.slots.index(slot)
        for pair in runner._kv.arrays:
            for array in pair:
                array[row] = np.nan

    return Player(runner, np.random.default_rng(), several=several, poison=poison)


def drive(runner: OnnxRunner, steps: int) -> list[Sequence]:
    """Run random mixed steps and close the runner."""
    played = player_of(runner).mix(steps)
    runner.close()
    return played


def assert_equal_to_the_model(directory: Path, played: Iterable[Sequence], label: str) -> int:
    """Compare with a model directory in float64. Return how many results were held against it."""
    return assert_equal(in_float64(directory), played, label, tie=ROUTING_TIE, in_float32=load_model(directory))
