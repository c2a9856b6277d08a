"""Sequences that share pages, are forked from others, and take tokens back get what the model computes, all the same.

Legend: T positions, V vocabulary, R wanted results, D width.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen_backend_cpu import native_runner
from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep

from .mixed_steps import AnyRunner

CONTEXT = 150
VOCABULARY = 61


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pages in a short context."""
    monkeypatch.setattr(native_runner, "_PAGE_TOKENS", 32)


def config(pattern: str, window: int, kv_share: int, context: int = CONTEXT) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=context,
        layer_pattern=pattern,
        sliding_window=window,
        kv_share=kv_share,
        intermediate_size=32,
        qk_norm=True,
        initializer_range=0.3,
    )


def saved(model_config: ModelConfig, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_model(Transformer(model_config), folder)
    return folder


@dataclass
class Sequence:
    """Its tokens, where they lie, and the logits it got after some of them."""

    slot: int
    pages: list[int]
    tokens: list[int] = field(default_factory=list)
    logits: dict[int, np.ndarray] = field(default_factory=dict)


class Player:
    """Gives out slots and pages in random order, and steps sequences."""

    def __init__(self, runner: AnyRunner, random: np.random.Generator) -> None:
        self.runner, self.random = runner, random
        self.free_slots = random.permutation(runner.layout.slots).tolist()
        self.free_pages = random.permutation(runner.layout.pages).tolist()
        for slot in range(runner.layout.slots):
            runner.poison(slot, range(runner.layout.pages))

    def begin(self) -> Sequence:
        return Sequence(self.free_slots.pop(), [])

    def share(self, sequence: Sequence, new: list[int], wanted: int = 1) -> SequenceStep:
        start = len(sequence.tokens)
        while len(sequence.pages) < self.runner.layout.pages_for(start + len(new)):
            sequence.pages.append(self.free_pages.pop())
        pages = sequence.pages if self.runner.layout.page_tokens else None
        return SequenceStep(sequence.slot, start, new, pages, wanted)

    def step(self, *plans: tuple[Sequence, int]) -> None:
        """Give each sequence so many random tokens, and want the results of some of the last."""
        batch = []
        for sequence, count in plans:
            new = self.random.integers(0, VOCABULARY, count).tolist()
            batch.append(self.share(sequence, new, int(self.random.integers(1, count + 1))))
            sequence.tokens.extend(new)
        rows = iter(self.runner.step(batch))
        for (sequence, count), step in zip(plans, batch, strict=True):
            for position in range(step.start + count - step.wanted, step.start + count):
                sequence.logits[position] = next(rows)

    def fork(self, source: Sequence, tokens: int) -> Sequence:
        """A sequence that begins as the first `tokens` of `source`: whole pages are shared, the last is copied."""
        target = self.begin()
        self.runner.copy_slot(source.slot, target.slot, tokens)
        if page := self.runner.layout.page_tokens:
            target.pages = source.pages[: tokens // page]
            if tokens % page:
                target.pages.append(self.free_pages.pop())
                self.runner.copy_page(source.pages[tokens // page], target.pages[-1])
        target.tokens = source.tokens[:tokens]
        return target


def lossless(runner: AnyRunner) -> int:
    windows = [group.window for group in runner.cache.groups if group.window is not None]
    return min(windows) + runner.layout.rewind if windows else CONTEXT


@torch.inference_mode()
def assert_right(directory: Path, *sequences: Sequence) -> None:
    reference = load_model(directory, torch.float64)
    for sequence in sequences:
        logits_TV = reference.logits(reference(torch.tensor([sequence.tokens])).hidden_BTD)[0].numpy()
        for position, logits_V in sequence.logits.items():
            np.testing.assert_allclose(logits_V, logits_TV[position], atol=1e-4, rtol=0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["SF", "F", "S", "SSSF"]),
    st.sampled_from([5, 32, 40]),
    st.integers(1, 2),
    st.integers(0, 6),
    st.integers(0, 2**31),
    st.data(),
)
def test_forks_of_a_sequence_equal_the_whole_forward_pass(
    runner_class: type[AnyRunner], pattern: str, window: int, share: int, draft: int, seed: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = saved(config(pattern, window, share), Path(folder), seed)
        runner = runner_class(directory, EngineLimits(3, CONTEXT, 200, cached_sequences=2, draft_tokens=draft))
        player = Player(runner, np.random.default_rng(seed))
        first, other = player.begin(), player.begin()
        player.step((first, data.draw(st.integers(1, 70))), (other, 3))
        player.step((first, data.draw(st.integers(1, 30))), (other, 1))
        length = len(first.tokens)
        low = 1 if length <= lossless(runner) else length - min(runner.layout.rewind, length - 1)
        fork = player.fork(first, data.draw(st.integers(low, length)))
        for _ in range(3):
            player.step((fork, data.draw(st.integers(1, 9))), (first, 1), (other, data.draw(st.integers(1, 9))))
        assert_right(directory, first, fork, other)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["SF", "F", "S"]), st.sampled_from([5, 32]), st.integers(0, 2**31), st.data())
def test_tokens_that_are_taken_back_leave_no_trace(
    runner_class: type[AnyRunner], pattern: str, window: int, seed: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = saved(config(pattern, window, 1), Path(folder), seed)
        runner = runner_class(directory, EngineLimits(2, CONTEXT, 200, draft_tokens=4))
        player = Player(runner, np.random.default_rng(seed))
        sequence = player.begin()
        player.step((sequence, data.draw(st.integers(1, 80))))
        for _ in range(6):
            player.step((sequence, data.draw(st.integers(1, 5))))
            back = data.draw(st.integers(0, min(4, runner.layout.rewind, len(sequence.tokens) - 1)))
            del sequence.tokens[len(sequence.tokens) - back :]
            sequence.logits = {at: row_V for at, row_V in sequence.logits.items() if at < len(sequence.tokens)}
        assert_right(directory, sequence)


@pytest.mark.usefixtures("native")
def test_a_runner_with_windows_keeps_as_many_tokens_beyond_them_as_were_asked_for(tmp_path: Path) -> None:
    directory = saved(config("SF", 32, 1), tmp_path, 0)
    rewinds = [
        NativeRunner(directory, EngineLimits(1, CONTEXT, 8, draft_tokens=n)).layout.rewind for n in (0, 1, 32, 33)
    ]
    assert rewinds == [0, 32, 32, 64]


def test_hidden_states_are_those_that_the_head_sees(runner_class: type[AnyRunner], tmp_path: Path) -> None:
    directory = saved(config("SF", 5, 1), tmp_path, 1)
    runner = runner_class(directory, EngineLimits(2, CONTEXT, 64))
    batch = [SequenceStep(0, 0, [1, 2, 3, 4], wanted=2), SequenceStep(1, 0, [5])]
    hidden_RD = runner.hidden(batch)
    head_VD = load_model(directory, torch.float32).head_weight_VD.detach().numpy()
    np.testing.assert_allclose(hidden_RD @ head_VD.T, runner.step(batch), atol=1e-4)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_sequence_gets_the_same_bits_alone_and_among_others(
    weights: Literal["float32", "bfloat16", "int8"], tmp_path: Path
) -> None:
    """Chunks are longer than the window at times, and cross the borders of the keys that are scored together."""
    context = 400
    directory = saved(config("SSSF", 40, 2, context), tmp_path, 2)
    options = {"dtype": "float32"} if weights == "float32" else {"dtype": "bfloat16"}
    quantize = "int8" if weights == "int8" else None
    random = np.random.default_rng(2)
    cuts = [0, 32, 64, 110, 200, 300, 310, *range(311, 320)]
    tokens = random.integers(0, VOCABULARY, cuts[-1]).tolist()

    def results(crowd: int) -> list[np.ndarray]:
        limits = EngineLimits(crowd + 1, context, 100 + 60 * crowd)
        runner = NativeRunner(directory, limits, quantize=quantize, **options)  # type: ignore[arg-type]
        assert runner.layout.batch_invariant
        lengths = [0] * crowd
        rows = []
        for begin, end in pairwise(cuts):
            batch = [SequenceStep(crowd, begin, tokens[begin:end])]
            for slot in range(crowd):
                count = min(int(random.integers(1, 61)), context - lengths[slot])
                if count:
                    batch.insert(0, SequenceStep(slot, lengths[slot], random.integers(0, VOCABULARY, count).tolist()))
                    lengths[slot] += count
            rows.append(runner.step(batch)[-1])
        return rows

    alone = results(0)
    for crowd in (1, 7, 15):
        for expected_V, got_V in zip(alone, results(crowd), strict=True):
            np.testing.assert_array_equal(expected_V, got_V)
