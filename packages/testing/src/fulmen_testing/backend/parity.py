"""Parity: whatever the plan, the chunking and the company, a sequence gets what the checkpoint computes."""

from __future__ import annotations

import numpy as np
import pytest

from fulmen_core.errors import CapabilityError
from fulmen_core.runner import EngineLimits
from fulmen_testing.backend.bench import Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.backend.verdicts import assert_right
from fulmen_testing.player import Player

#: Leads of the likeliest token over the second, in logits, below which rounding may choose.
TOKEN_TIE = 1e-3


class ParityClaims(BackendTrial):
    """A backend computes the model, in the most precise dtype that it lists."""

    def test_random_plans_in_random_mixed_steps(self, serving: Bench) -> None:
        """Logits of random plans, in ragged mixed steps with slots used again, equal the whole forward pass"""
        refused = []
        for number in range(serving.plans):
            try:
                model = serving.random_plan(number)
            except CapabilityError as error:
                refused.append(str(error))
                continue
            with serving.player(model, salt=number) as player:
                player.mix(8)
                assert_right(serving, model, player)
        assert len(refused) < serving.plans, f"it serves none of the plans: {refused}"

    def test_greedy_tokens(self, serving: Bench, model: Model) -> None:
        """The greedy continuation is the checkpoint's, token by token, wherever that is no toss"""
        random = serving.generator(1)
        reference = model.reference()
        decided = 0
        with serving.runner(model) as runner:
            player = Player(runner, random)
            for length in (1, 7, 20):
                prompt = random.integers(0, model.config.vocab_size, length).tolist()
                expected, margins = reference.greedy(prompt, 12)
                sequence = player.begin()
                logits_V = player.say(sequence, prompt)
                for token, margin in zip(expected, margins, strict=True):
                    if margin > (TOKEN_TIE if serving.dtype == "float32" else 0.3):
                        assert int(np.argmax(logits_V)) == token, f"after {sequence.tokens}; {model.label}"
                        decided += 1
                    logits_V = player.say(sequence, [token])
                player.end(sequence)
        assert decided > 0

    def test_windows_are_crossed_at_every_border(self, serving: Bench, model: Model) -> None:
        """Chunks of 1, of a window less one, of a window and one more, begun anywhere, see no more than the window"""
        window = model.config.sliding_window
        sizes = (1, window - 1, window, window + 1, 2 * window + 1)
        with serving.player(model) as player:
            for first in sizes:
                sequence = player.begin()
                player.grow(sequence, first, *sizes, 1, 1)
                player.end(sequence)
            assert_right(serving, model, player)

    def test_a_prompt_may_be_cut_anywhere(self, serving: Bench, model: Model) -> None:
        """A prompt in one chunk, in many, and token by token leads to the same results"""
        tokens = serving.generator(2).integers(0, model.config.vocab_size, 48).tolist()
        with serving.player(model) as player:
            ends = []
            for cuts in ([48], [1, 47], [16, 16, 16], [7, 1, 30, 10], [1] * 48):
                sequence, at = player.begin(), 0
                for count in cuts:
                    player.say(sequence, tokens[at : at + count])
                    at += count
                ends.append(sequence.logits[47])
                player.end(sequence)
            assert_right(serving, model, player)
        assert max(float(np.abs(end - ends[0]).max()) for end in ends) < (1e-3 if serving.dtype == "float32" else 1.0)

    def test_a_context_is_used_to_its_end(self, serving: Bench, model: Model) -> None:
        """The last token that a context has room for is computed as the first"""
        with serving.player(model, EngineLimits(2, 150, 64)) as player:
            sequence, other = player.begin(), player.begin()
            player.grow(sequence, 64, 64, 20)
            player.together((sequence, 1), (other, 63))
            player.together((sequence, 1), (other, 1))
            assert len(sequence.tokens) == player.runner.limits.max_context
            assert_right(serving, model, player)

    def test_a_step_may_be_as_full_as_the_limits_say(self, serving: Bench, model: Model) -> None:
        """A step takes as many sequences and as many tokens as the limits say, in any order of slots"""
        with serving.player(model, EngineLimits(8, 64, 100)) as player:
            everyone = [player.begin() for _ in range(8)]
            player.together(*((sequence, 12 + (place < 4)) for place, sequence in enumerate(everyone)))
            player.together(*((sequence, 1) for sequence in reversed(everyone)))
            assert_right(serving, model, player)

    def test_results_of_several_tokens(self, serving: Bench, model: Model) -> None:
        """Results of more than the last token are given; only a runner that takes nothing back may refuse them"""
        with serving.runner(model) as runner:
            player = Player(runner, serving.generator(3), several=False)
            player.several = True
            try:
                player.mix(6)
            except (ValueError, CapabilityError) as error:
                assert not runner.layout.rewind, "what may be taken back must be judged first: speculation needs it"
                pytest.skip(f"it refuses: {error}")
            assert_right(serving, model, player)
