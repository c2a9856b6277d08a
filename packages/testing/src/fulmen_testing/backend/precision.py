"""Precision and determinism: fewer bits cost what they must, no more; the same question gets the same bits.

Results are judged token by token. The model with experts has them in its last layer, and tokens over which its router
nearly tosses a coin are passed over: a flipped expert is no rounding error.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError
from fulmen_testing.backend.bench import DTYPES, QUANTIZATIONS, Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.backend.verdicts import assert_as_close_as_rounding, assert_right
from fulmen_testing.player import Player


class PrecisionClaims(BackendTrial):
    """Every dtype and quantisation that is listed keeps its tolerance."""

    @pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_listed_dtype_keeps_its_tolerance(self, serving: Bench, dtype: Dtype, experts: bool) -> None:
        """A dtype that is listed is as close to float64 as its bits allow, token by token"""
        if dtype not in serving.capabilities.serve_dtypes:
            pytest.skip("it does not list it")
        model = serving.experts(dtype) if experts else serving.dense(dtype)
        with serving.player(model, dtype=dtype) as player:
            _short_sequences(player)
            if dtype == "float32":
                assert_right(serving, model, player, dtype)
            else:
                assert_as_close_as_rounding(model, player, dtype)

    @pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_a_listed_quantisation_keeps_its_tolerance(
        self, serving: Bench, quantization: Quantization, experts: bool
    ) -> None:
        """A quantisation of weights that is listed is as close to float64 as its bits allow, token by token"""
        if quantization not in serving.capabilities.quantizations:
            pytest.skip("it does not list it")
        if serving.format != "checkpoint":
            pytest.skip("what is exported is quantised by the exporter")
        dtype: Dtype = "bfloat16" if "bfloat16" in serving.capabilities.serve_dtypes else serving.dtype
        model = serving.experts(dtype) if experts else serving.dense(dtype)
        with ExitStack() as loaded:
            try:
                player = loaded.enter_context(serving.player(model, dtype=dtype, quantize=quantization))
            except CapabilityError as error:
                if experts:
                    raise
                pytest.skip(f"it refuses a model without experts: {error}")
            _short_sequences(player)
            assert_as_close_as_rounding(model, player, quantization)

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_an_artefact_with_quantised_weights_keeps_its_tolerance(
        self, serving: Bench, quantization: Quantization
    ) -> None:
        """Weights that the exporter quantised are as close to float64 as their bits allow, or it refuses by name"""
        if serving.format == "checkpoint":
            pytest.skip("it serves checkpoints: nothing is exported for it")
        try:
            model = serving.dense(serving.dtype, quantization)
        except CapabilityError as error:
            pytest.skip(f"the exporter refuses: {error}")
        with serving.player(model) as player:
            _short_sequences(player)
            assert_as_close_as_rounding(model, player, quantization)

    def test_the_same_steps_give_the_same_bits(self, serving: Bench, model: Model) -> None:
        """Two runners that are given the same steps, and one that is given them twice, give the same bits"""

        def play() -> list[np.ndarray]:
            with serving.runner(model) as runner:
                found = []
                for _ in range(2):
                    player = Player(runner, serving.generator(5))
                    player.mix(4)
                    found.append([row_V for one in player.played for row_V in one.logits.values()])
                    for sequence in player.played:
                        runner.release(sequence.slot)
            np.testing.assert_array_equal(found[0], found[1])
            return found[0]

        np.testing.assert_array_equal(play(), play())


def _short_sequences(player: Player) -> None:
    """Many short sequences, in steps of all of them."""
    for _ in range(8):
        everyone = [player.begin() for _ in range(player.runner.limits.max_sequences)]
        player.together(*((one, int(player.random.integers(1, 12))) for one in everyone))
        for _ in range(3):
            player.together(*((one, 1) for one in everyone))
        for one in everyone:
            player.end(one)
