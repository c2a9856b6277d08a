"""Caches: prefixes that are shared, forks, tokens that are taken back, and sequences that end in the middle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fulmen_core.runner import EngineLimits
from fulmen_testing.backend.bench import LIMITS, Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.backend.verdicts import assert_right


class CacheClaims(BackendTrial):
    """What a slot and its pages hold is the sequence's, and no one else's."""

    def test_nothing_of_an_earlier_sequence_is_read(self, serving: Bench, model: Model) -> None:
        """A slot that is used again, after a long sequence, a short one, or one cut off in the middle, reads nothing
        of it"""
        with serving.player(model) as player:
            for length in (40, 3, 1, 17, 2):
                sequence, other = player.begin(), player.begin()
                player.together((sequence, length), (other, 5))
                player.end(other)  # in the middle, as when its client hangs up
                late = player.begin()
                player.together((sequence, 1), (late, 9))
                player.end(sequence)
                player.end(late)
            assert_right(serving, model, player)

    def test_a_new_sequence_needs_no_release(self, serving: Bench, model: Model) -> None:
        """A sequence that begins at 0 overwrites what its slot held, released or not"""
        with serving.player(model) as player:
            sequence = player.begin()
            player.grow(sequence, 30)
            player.take_back(sequence, 30)  # to its beginning: a new sequence
            player.grow(sequence, 4, 1, 1)
            assert_right(serving, model, player)
            player.runner.release(sequence.slot)
            player.runner.release(sequence.slot)

    def test_forks_share_a_prefix(self, serving: Bench, model: Model) -> None:
        """A fork, by copy_slot, shared pages and copy_page, goes on as its source would, and neither disturbs the
        other"""
        limits = replace(LIMITS, cached_sequences=2)
        for number in range(3):
            with serving.player(model, limits, salt=number) as player:
                random = player.random
                source, other = player.begin(), player.begin()
                player.together((source, int(random.integers(1, 90))), (other, 3))
                for _ in range(int(random.integers(1, 3))):
                    player.together((source, int(random.integers(1, 90))), (other, 1))
                back = int(random.integers(0, player.rewindable(source) + 1))
                fork = player.fork(source, len(source.tokens) - back)
                for _ in range(3):
                    player.together(
                        (fork, int(random.integers(1, 9))), (source, 1), (other, int(random.integers(1, 9)))
                    )
                player.end(source)
                last = player.begin()
                player.together((fork, 1), (last, 20))
                assert_right(serving, model, player)

    def test_tokens_that_are_taken_back_leave_no_trace(self, serving: Bench, model: Model) -> None:
        """Tokens taken back, as far as the layout allows, leave no trace"""
        with serving.player(model, replace(LIMITS, draft_tokens=4)) as player:
            sequence = player.begin()
            player.grow(sequence, 70)
            taken = 0
            for _ in range(6):
                player.grow(sequence, int(player.random.integers(1, 5)))
                back = min(4, player.rewindable(sequence), len(sequence.tokens) - 1)
                player.take_back(sequence, back)
                player.grow(sequence, 1)
                taken += back
            short = player.begin()
            player.grow(short, 6)
            player.take_back(short, min(4, player.rewindable(short)))
            player.grow(short, 3)
            assert_right(serving, model, player)
            if not taken:
                pytest.skip(
                    "the layout lets no token of a long sequence be taken back; those of a short one leave no trace"
                )

    def test_the_layout_adds_up(self, serving: Bench, model: Model) -> None:
        """There are slots for all that runs and is kept, pages for whole contexts, and drafts can be taken back"""
        limits = EngineLimits(3, 200, 64, cached_sequences=2)
        with serving.runner(model, limits) as runner:
            layout = runner.layout
            assert layout.slots >= limits.slots
            assert layout.pages >= limits.max_sequences * layout.pages_for(200)
            assert (layout.page_tokens == 0) == (layout.pages == 0)
            assert runner.limits.max_sequences == 3
            if layout.page_tokens:
                assert layout.pages_for(layout.page_tokens + 1) == 2
            else:
                with pytest.raises(ValueError, match="page"):
                    runner.copy_page(0, 1)

    def test_a_sequence_gets_the_same_bits_alone_and_in_company(self, serving: Bench, model: Model) -> None:
        """Where the layout says batch_invariant, a sequence's bits do not depend on what else is in the step"""
        with serving.runner(model) as runner:
            if not runner.layout.batch_invariant:
                pytest.skip("the layout does not say batch_invariant")
        cuts = (20, 1, 33, 1, 1, 1)
        tokens = serving.generator(4).integers(0, model.config.vocab_size, sum(cuts)).tolist()

        def results(crowd: int) -> list[np.ndarray]:
            found, at = [], 0
            with serving.player(model, EngineLimits(8, 288, 288), salt=crowd) as player:
                sequence = player.begin()
                others = [player.begin() for _ in range(crowd)]
                for count in cuts:
                    new = tokens[at : at + count]
                    at += count
                    company = [(other, int(player.random.integers(1, 30))) for other in others]
                    found.append(player.say(sequence, new, *company))
            return found

        alone = results(0)
        for crowd in (1, 3, 7):
            for expected_V, got_V in zip(alone, results(crowd), strict=True):
                np.testing.assert_array_equal(got_V, expected_V)
