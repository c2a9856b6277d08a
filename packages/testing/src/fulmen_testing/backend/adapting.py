"""Adapters: each sequence is computed with its own, and none notices the others'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.adapters import merged, write_adapter
from fulmen_testing.backend.bench import Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.backend.verdicts import assert_right
from fulmen_testing.player import Player, judge
from fulmen_testing.reference import Reference

#: Sequences of each adapter, one after the other: where an early token's experts are a toss, all of one is passed over.
_ROUNDS = 3
LIMITS = EngineLimits(max_sequences=4, max_context=128, max_step_tokens=64, adapters=2, adapter_rank=8)


class AdapterClaims(BackendTrial):
    """A backend that lists `adapters` serves them as PEFT means them."""

    @pytest.fixture
    def adapting(self, serving: Bench) -> Bench:
        """The bench of a backend that serves adapters. Skips for others."""
        if not serving.capabilities.adapters:
            pytest.skip("it does not list adapters")
        return serving

    def test_each_sequence_gets_its_own_adapter(self, adapting: Bench, model: Model, tmp_path: Path) -> None:
        """In one step, sequences of two adapters and of none get what the merged weights compute"""
        folders = _adapters(model, adapting.generator(6), tmp_path, ranks=(1, 8))
        with adapting.runner(model, LIMITS) as runner:
            numbers = [0, *(runner.load_adapter(folder) for folder in folders)]
            assert numbers == [0, 1, 2]
            player = Player(runner, adapting.generator(7))
            for _ in range(_ROUNDS):
                everyone = [player.begin(number) for number in (*numbers, 2)]
                player.together(*zip(everyone, (20, 9, 13, 1), strict=True))
                for _ in range(3):
                    player.together(*((one, int(player.random.integers(1, 4))) for one in everyone))
                for one in everyone:
                    player.end(one)
            for number, folder in zip(numbers, (None, *folders), strict=True):
                reference = Reference(merged(model.checkpoint, folder))
                verdict = judge(reference, [one for one in player.played if one.adapter == number])
                assert verdict.judged > 0
                assert max(verdict.errors) < (1e-3 if adapting.dtype == "float32" else 0.2), f"{verdict}; {model.label}"

    def test_adapters_come_and_go(self, adapting: Bench, model: Model, tmp_path: Path) -> None:
        """Numbers are the lowest free ones; unloading disturbs nobody else, and may be repeated"""
        first, second, third = _adapters(model, adapting.generator(8), tmp_path, ranks=(2, 4, 8))
        with adapting.runner(model, LIMITS) as runner:
            assert (runner.load_adapter(first), runner.load_adapter(second)) == (1, 2)
            with pytest.raises(ValueError, match=r".+"):
                runner.load_adapter(third)
            player = Player(runner, adapting.generator(9))
            plain, adapted = ([player.begin(number) for _ in range(2)] for number in (0, 2))
            player.together(*((one, 9) for one in (*plain, *adapted)))
            runner.unload_adapter(1)
            runner.unload_adapter(1)
            assert runner.load_adapter(third) == 1
            player.together(*((one, 1) for one in plain), *((one, 3) for one in adapted))
            assert_right(adapting, model, player, sequences=plain)
            verdict = judge(Reference(merged(model.checkpoint, second)), adapted)
            assert verdict.judged > 0
            assert max(verdict.errors) < (1e-3 if adapting.dtype == "float32" else 0.2)

    def test_a_step_with_an_adapter_that_is_not_loaded_computes_nothing(self, adapting: Bench, model: Model) -> None:
        """A step that names an adapter that is not loaded is refused before anything is computed"""
        with adapting.runner(model, LIMITS) as runner:
            before = runner.step([SequenceStep(0, 0, [1, 2, 3])])
            with pytest.raises(ValueError, match=r".+"):
                runner.step([SequenceStep(0, 3, [9]), SequenceStep(1, 0, [4], adapter=1)])
            np.testing.assert_array_equal(runner.step([SequenceStep(2, 0, [1, 2, 3])]), before)

    def test_what_is_no_adapter_of_the_model_is_refused(self, adapting: Bench, model: Model, tmp_path: Path) -> None:
        """A folder that is no adapter, one of another model, or of too high a rank is refused; nothing is loaded"""
        random = adapting.generator(10)
        (fits,) = _adapters(model, random, tmp_path / "good", ranks=(2,))
        (too_high,) = _adapters(model, random, tmp_path / "high", ranks=(LIMITS.adapter_rank + 1,))
        wider = model.config.model_copy(update={"hidden_size": 2 * model.config.hidden_size})
        foreign = write_adapter(wider, tmp_path / "foreign", random, 2)
        with adapting.runner(model, LIMITS) as runner:
            for folder in (tmp_path / "missing", tmp_path, too_high, foreign):
                with pytest.raises(UserError):
                    runner.load_adapter(folder)
            assert runner.load_adapter(fits) == 1


def _adapters(model: Model, random: np.random.Generator, folder: Path, ranks: tuple[int, ...]) -> list[Path]:
    return [
        write_adapter(model.config, folder / f"adapter-{number}", random, rank, share=1.0 if number else 0.6)
        for number, rank in enumerate(ranks)
    ]
