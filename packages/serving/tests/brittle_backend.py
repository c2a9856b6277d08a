"""A backend as a plugin file whose process can be made to die, to hang or to be slow, by files in its model directory.

Its logits are a pure function of the whole prefix: an answer that went on in another process shows every mix-up.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np

from fulmen_core.backend import Capabilities
from fulmen_core.descriptors import Availability, BackendInfo
from fulmen_core.errors import UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.model.kv import CacheGroup, CacheSpec
from fulmen_core.runner import CacheLayout

POISON = 510  # a token whose computation kills the process
VOCAB = 512


class BrittleRunner:
    def __init__(self, model: Path, limits) -> None:
        self.cache, self.limits, self.vocab_size = CacheSpec((CacheGroup(None, (0,)),), 2), limits, VOCAB
        self.layout = CacheLayout(limits.slots, rewind=limits.max_context)
        self.model = model
        self.slots: dict[int, list[int]] = {}
        if (model / "refuses").exists():
            raise UserError("the weights are gone", where=str(model))

    def step(self, batch):
        if (self.model / "slow").exists():
            time.sleep(0.01)
        if (self.model / "hangs").exists():
            (self.model / "hangs").unlink()
            time.sleep(600)
        rows = []
        for share in batch:
            if POISON in share.token_ids:
                os.kill(os.getpid(), signal.SIGKILL)
            tokens = self.slots.setdefault(share.slot, [])
            if share.start > len(tokens):
                raise ValueError(f"slot {share.slot} holds {len(tokens)} tokens and was fed from {share.start}")
            tokens[share.start :] = share.token_ids
            rows.extend(self.logits(tokens[: len(tokens) - back]) for back in reversed(range(share.wanted)))
        return np.stack(rows)

    def logits(self, prefix):
        seed = hashlib.blake2b(np.asarray(prefix, np.int64).tobytes(), digest_size=8).digest()
        row = np.random.default_rng(list(seed)).standard_normal(VOCAB, np.float32) * 2
        row[POISON] = -100  # it dies of what it is asked, never of what it says
        return row

    def copy_slot(self, source, target, tokens):
        self.slots[target] = self.slots[source][:tokens]

    def release(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def close(self) -> None:
        self.slots.clear()


class BrittleBackend:
    name = "brittle"

    def capabilities(self) -> Capabilities:
        return Capabilities(serve=True, formats=("brittle",), serve_dtypes=("float32",))

    def load_runner(self, model, limits, dtype="float32"):
        return BrittleRunner(model, limits)


@hookimpl
def fulmen_backends():
    return [BackendInfo("brittle", "for the tests of what survives it", lambda: Availability(ok=True), BrittleBackend)]
