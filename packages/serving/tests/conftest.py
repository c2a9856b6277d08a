"""Real parts for the tests: a runner that computes logits from the very tokens it was fed, and a tiny tokenizer."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fulmen_core.model.kv import CacheGroup, CacheSpec
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.tokenizer import Tokenizer


class PrefixRunner:
    """A model whose next-token logits are a pure function of the whole prefix, so that any mix-up of slots shows.

    It keeps the tokens of each slot and raises if a step does not continue them, if a slot is begun again without
    having been released, or if a step exceeds the limits.
    """

    def __init__(self, limits: EngineLimits, vocab_size: int = 40, *, seconds: float = 0.0) -> None:
        self.cache = CacheSpec((CacheGroup(None, (0,)),), 2)
        self.limits = limits
        self.vocab_size = vocab_size
        self.seconds = seconds  # time of a step, so that clients can act in the middle of an answer
        self.slots: dict[int, list[int]] = {}
        self.steps = 0
        self.closed = False
        self.fail_on: Callable[[Sequence[SequenceStep]], bool] = lambda batch: False
        self.gate = threading.Event()  # cleared: steps wait
        self.gate.set()

    def logits(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        seed = hashlib.blake2b(np.asarray(prefix, np.int64).tobytes(), digest_size=8).digest()
        return np.random.default_rng(list(seed)).standard_normal(self.vocab_size, np.float32) * 2

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        if not self.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        if self.seconds:
            time.sleep(self.seconds)
        self.steps += 1
        slots = [share.slot for share in batch]
        assert batch
        assert len(set(slots)) == len(slots) <= self.limits.max_sequences
        assert sum(len(share.token_ids) for share in batch) <= self.limits.max_step_tokens
        if self.fail_on(batch):
            raise RuntimeError("out of memory")
        rows = []
        for share in batch:
            assert len(share.token_ids) > 0
            assert 0 <= share.slot < self.limits.max_sequences
            tokens = self.slots.setdefault(share.slot, [])
            if share.start != len(tokens):
                raise ValueError(f"slot {share.slot} holds {len(tokens)} tokens and was fed from {share.start}")
            tokens.extend(share.token_ids)
            assert len(tokens) <= self.limits.max_context
            rows.append(self.logits(tokens))
        return np.stack(rows)

    def release(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def prefix_runner() -> type[PrefixRunner]:
    return PrefixRunner


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The quick brown fox jumps over the lazy dog. 0123456789 中文测试 "
    return Tokenizer.train([text * 4], 512)
