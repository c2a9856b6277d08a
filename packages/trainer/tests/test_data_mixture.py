"""The mixture is a pure function of seed and step, in the proportions asked for, and goes on across stages."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_trainer.data.mixture import CYCLE, MixtureSampler, deal_slots
from fulmen_trainer.data.shards import ShardSet, TokenisedDocument, open_shards, write_shards

SIZES = {"a": (40, 0), "b": (7, 1000), "c": (300, 2000)}  # documents, and where their tokens start


@cache
def tokenizer() -> Tokenizer:
    return ByteLevelTokenizer.train(["some text"], 4096)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardSet]:
    root = tmp_path_factory.mktemp("sources")
    for name, (count, start) in SIZES.items():
        documents = (TokenisedDocument([start + i % 900] * (3 + i % 11), 1) for i in range(count))
        write_shards(root / name, documents, tokenizer=tokenizer())
    return {name: open_shards(root / name) for name in SIZES}


def source_of(token: int) -> str:
    return "a" if token < 1000 else "b" if token < 2000 else "c"


def digest(sampler: MixtureSampler, steps: list[int]) -> str:
    sha = hashlib.sha256()
    for step in steps:
        batch = sampler.batch(step, 4)
        for array in (batch.tokens_BT1, batch.segments_BT1, batch.positions_BT1):
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def test_a_fresh_process_that_starts_in_the_middle_draws_the_same_batches(shards: dict[str, ShardSet]) -> None:
    weights = {"a": 0.5, "b": 0.2, "c": 0.3}
    steps = [0, 1, 2, 500, 123_456]
    paths = {name: str(one.directory) for name, one in shards.items()}
    code = f"""
import numpy, hashlib
from pathlib import Path
from fulmen_trainer.data.mixture import MixtureSampler
from fulmen_trainer.data.shards import open_shards
shards = {{name: open_shards(Path(path)) for name, path in {paths!r}.items()}}
sampler = MixtureSampler(shards, {dict(reversed(weights.items()))!r}, 17, seed=3)
batches = [sampler.batch(step, 4) for step in {steps[::-1]!r}][::-1]
sha = hashlib.sha256()
for batch in batches:
    for array in (batch.tokens_BT1, batch.segments_BT1, batch.positions_BT1):
        sha.update(numpy.ascontiguousarray(array).tobytes())
print(sha.hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(MixtureSampler(shards, weights, 17, seed=3), steps)


def test_shapes_and_types_are_as_promised(shards: dict[str, ShardSet]) -> None:
    batch = MixtureSampler(shards, {"a": 1}, 16, seed=0).batch(5, 3)
    for array in (batch.tokens_BT1, batch.segments_BT1, batch.positions_BT1):
        assert array.shape == (3, 17)
        assert array.dtype == np.int64
    assert batch.trained_BT.shape == (3, 16)


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 10), min_size=1), st.integers(1, 5), st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_counters_say_what_was_really_drawn(
    shards: dict[str, ShardSet], weights: dict[str, float], batch_size: int, steps: int
) -> None:
    sampler = MixtureSampler(shards, weights, 8, seed=1)
    drawn: Counter[str] = Counter()
    for step in range(steps % 40):
        batch = sampler.batch(step, batch_size)
        drawn.update(batch.source_tokens)
        assert Counter(source_of(row[0]) for row in batch.tokens_BT1.tolist()) == Counter(
            {name: tokens // 8 for name, tokens in batch.source_tokens.items() if tokens}
        )
    counted = sampler.sampled_tokens(batch_size * (steps % 40))
    assert {name: tokens for name, tokens in counted.items() if tokens} == {n: t for n, t in drawn.items() if t}


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_shares_are_met_and_no_source_is_forgotten(weights: list[float]) -> None:
    slots = deal_slots(weights)
    counts = np.bincount(slots, minlength=len(weights))
    assert slots.shape == (CYCLE,)
    assert counts.min() >= 1
    wanted = np.array(weights) / sum(weights) * CYCLE
    # A source may be off by one slot, and by those that sources too small for a slot were given.
    assert np.abs(counts - np.maximum(wanted, 1)).max() <= 1 + (wanted < 1).sum()


def test_sources_are_interleaved_evenly_within_the_cycle() -> None:
    slots = deal_slots([0.75, 0.25])
    for start in range(0, CYCLE, 8):
        assert np.bincount(slots[start : start + 8], minlength=2).tolist() == [6, 2]


def test_proportions_hold_from_the_first_steps_on(shards: dict[str, ShardSet]) -> None:
    weights = {"a": 0.6, "b": 0.1, "c": 0.3}
    tokens = MixtureSampler(shards, weights, 8, seed=0).sampled_tokens(100)
    assert {name: round(count / 800, 2) for name, count in tokens.items()} == pytest.approx(weights, abs=0.02)


def test_a_later_stage_goes_on_where_the_last_one_stopped(shards: dict[str, ShardSet]) -> None:
    whole = MixtureSampler(shards, {"a": 1}, 10, seed=4)
    first = MixtureSampler(shards, {"a": 1, "b": 1}, 10, seed=4)
    second = MixtureSampler(shards, {"a": 1}, 10, seed=4, first_rows=first.rows_drawn(20))
    assert first.rows_drawn(20) == {"a": 10, "b": 10}
    assert np.array_equal(second.rows(0, 5).tokens_BT1, whole.rows(10, 5).tokens_BT1)
    assert second.rows_drawn(5) == {"a": 15, "b": 10}
    assert second.sampled_tokens(5) == {"a": 50}
    assert second.epochs(5)["a"] == pytest.approx(150 / shards["a"].tokens)


@given(st.integers(0, 3000), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_batch_is_rows_when_every_step_has_the_same_size(shards: dict[str, ShardSet], step: int, size: int) -> None:
    sampler = MixtureSampler(shards, {"a": 2, "c": 1}, 5, seed=9)
    assert np.array_equal(sampler.batch(step, size).tokens_BT1, sampler.rows(step * size, size).tokens_BT1)


def test_another_seed_draws_another_order(shards: dict[str, ShardSet]) -> None:
    first, second = (MixtureSampler(shards, {"c": 1}, 50, seed=seed).batch(0, 4) for seed in (0, 1))
    assert not np.array_equal(first.tokens_BT1, second.tokens_BT1)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"z": 1.0}, "'z', which has no shards: use one of a, b, c"),
        ({"a": -1.0}, "weight -1.0 of 'a'"),
        ({"a": float("nan")}, "weight nan"),
        ({"a": float("inf")}, "weight inf"),
        ({"a": 0.0}, "0 sources of positive weight"),
        ({}, "0 sources"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused(
    shards: dict[str, ShardSet], weights: dict[str, float], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        MixtureSampler(shards, weights, 8, seed=0)


def test_sources_of_different_tokenizers_are_refused(shards: dict[str, ShardSet], tmp_path: Path) -> None:
    other = ByteLevelTokenizer.train(["other " * 9], 4096)
    write_shards(tmp_path, [TokenisedDocument([1], 1)], tokenizer=other)
    with pytest.raises(UserError, match="different tokenizers"):
        MixtureSampler({**shards, "other": open_shards(tmp_path)}, {"a": 1, "other": 1}, 8, seed=0)
