"""Tokens are taken back from the end of a sequence, whatever its windows have dropped since."""

from __future__ import annotations

import numpy as np
import pytest

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.runner import EngineLimits
from fulmen_testing.exporter.exported import Exported

from .conftest import CONTEXT
from .mixed_steps import assert_equal_to_the_model, player_of


@pytest.mark.parametrize("draft_tokens", [1, 3, 7])
def test_up_to_the_promised_number_of_tokens_is_taken_back_at_any_length(exported: Exported, draft_tokens: int) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(2, CONTEXT, threads=1, cached_sequences=1, draft_tokens=draft_tokens)
    runner = OnnxRunner(exported.artefact, limits)
    assert runner.layout.rewind == draft_tokens
    player = player_of(runner)
    sequences = [player.begin(), player.begin()]
    while all(len(sequence.tokens) < CONTEXT - 30 for sequence in sequences):
        plans = []
        for sequence in sequences:
            if sequence.tokens and random.random() < 0.6:
                # what is promised counts from the longest that it has been
                least = min(max(0, sequence.longest - draft_tokens), len(sequence.tokens))
                player.take_back(sequence, int(random.integers(0, len(sequence.tokens) - least + 1)))
            plans.append((sequence, int(random.integers(1, 25 if random.random() < 0.1 else draft_tokens + 2))))
        player.together(*plans)
    runner.close()
    assert_equal_to_the_model(exported.model, sequences, exported.label)


def test_a_copy_is_taken_back_as_its_source_is(exported: Exported) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(2, CONTEXT, threads=1, cached_sequences=1, draft_tokens=4)
    for length in (5, 14, 17, 60):
        runner = OnnxRunner(exported.artefact, limits)
        player = player_of(runner)
        source = player.begin()
        player.grow(source, length)
        copy = player.fork(source, length - int(random.integers(0, 5)))
        player.end(source)
        player.grow(copy, *[1] * 8)
        runner.close()
        assert_equal_to_the_model(exported.model, [copy], exported.label)


def test_without_drafts_nothing_is_promised(lightning: Exported) -> None:
    assert OnnxRunner(lightning.artefact, EngineLimits(2, 32, threads=1)).layout.rewind == 0
