"""Tokens are taken back from the end of a sequence, whatever its windows have dropped since."""

from __future__ import annotations

import numpy as np
import pytest

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.runner import EngineLimits, SequenceStep

from .conftest import CONTEXT, Exported
from .mixed_steps import Played, assert_equal_to_the_model, run


@pytest.mark.parametrize("draft_tokens", [1, 3, 7])
def test_up_to_the_promised_number_of_tokens_is_taken_back_at_any_length(exported: Exported, draft_tokens: int) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(2, CONTEXT, threads=1, cached_sequences=1, draft_tokens=draft_tokens)
    runner = OnnxRunner(exported.artefact, limits)
    assert runner.layout.rewind == draft_tokens
    sequences = {slot: Played() for slot in (0, 1)}
    written = {0: 0, 1: 0}  # the longest that each has been: what is promised counts from there
    while all(len(sequence.tokens) < CONTEXT - 30 for sequence in sequences.values()):
        batch = []
        for slot, sequence in sequences.items():
            if sequence.tokens and random.random() < 0.6:
                least = max(0, written[slot] - draft_tokens)
                sequence.cut(int(random.integers(min(least, len(sequence.tokens)), len(sequence.tokens) + 1)))
            begin = len(sequence.tokens)
            count = int(random.integers(1, 25 if random.random() < 0.1 else draft_tokens + 2))
            new = random.integers(0, runner.vocab_size, count).tolist()
            batch.append(SequenceStep(slot, begin, new, wanted=int(random.integers(1, count + 1))))
            sequence.tokens.extend(new)
            written[slot] = max(written[slot], len(sequence.tokens))
        run(runner, batch, sequences)
    runner.close()
    assert_equal_to_the_model(exported.model, list(sequences.values()), exported.label)


def test_a_copy_is_taken_back_as_its_source_is(exported: Exported) -> None:
    random = np.random.default_rng()
    limits = EngineLimits(2, CONTEXT, threads=1, cached_sequences=1, draft_tokens=4)
    for length in (5, 14, 17, 60):
        runner = OnnxRunner(exported.artefact, limits)
        sequences = {0: Played(random.integers(0, runner.vocab_size, length).tolist())}
        run(runner, [SequenceStep(0, 0, sequences[0].tokens)], sequences)
        kept = length - int(random.integers(0, 5))
        runner.copy_slot(0, 2, kept)
        runner.release(0)
        sequences[2] = Played(sequences[0].tokens[:kept])
        for _ in range(8):
            begin, token = len(sequences[2].tokens), int(random.integers(0, runner.vocab_size))
            sequences[2].tokens.append(token)
            run(runner, [SequenceStep(2, begin, [token])], sequences)
        runner.close()
        assert_equal_to_the_model(exported.model, [sequences[2]], exported.label)


def test_without_drafts_nothing_is_promised(lightning: Exported) -> None:
    assert OnnxRunner(lightning.artefact, EngineLimits(2, 32, threads=1)).layout.rewind == 0
