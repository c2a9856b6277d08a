"""Serving an artefact: slots are rows of static caches, and a step is a few runs of two graphs. Torch-free.

What runs the graphs is an `Executor`: TensorRT on a GPU (`fulmen_backend_tensorrt.engine_executor`), or ONNX Runtime on
a CPU, in float32, to prove the graphs (`fulmen_backend_tensorrt.twin_executor`).

Legend: S sequences in the step, B rows of one run, T tokens of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_tensorrt.artefact import EngineManifest, Phase, open_artefact
from fulmen_backend_tensorrt.launches import plan
from fulmen_core.errors import CapabilityError
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.refusals import WithoutAdapters, WithoutPages
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


class Executor(Protocol):
    """Holds the caches, `rows` of each, and runs the graphs of the two phases over adjoining rows."""

    def run(
        self, phase: Phase, first: int, ids_BT: NDArray[np.int64], positions_BT: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Compute the tokens of rows ``first .. first+B-1`` and return the logits [B, V] after the last of each."""
        ...

    def copy_row(self, source: int, target: int) -> None:
        """Make all that row `target` holds what row `source` holds."""
        ...

    def kv_bytes(self) -> int:
        """Bytes reserved for caches."""
        ...

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        ...


#: Opens the folder of an artefact for so many rows.
OpenExecutor = Callable[[Path, EngineManifest, ModelConfig, int], Executor]


class EngineRunner(WithoutPages, WithoutAdapters):
    """A `fulmen_core.runner.Runner` over an artefact of the formats "tensorrt-rtx" and "tensorrt".

    `limits` is what was asked for, with the context cut to what the artefact was built for. More sequences and longer
    steps than it was built for are divided into several runs.

    Args:
        artefact: the folder.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        open_executor: what runs the graphs.

    Raises:
        UserError, CapabilityError: the folder is missing, or no artefact of these formats, or cannot be run here.
        CorruptArtefact: a file is missing, truncated or altered.
    """

    def __init__(self, artefact: Path, limits: EngineLimits, open_executor: OpenExecutor) -> None:
        self.manifest, config = open_artefact(artefact)
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, self.manifest.max_context))
        self.layout = CacheLayout(limits.slots)
        self.vocab_size = config.vocab_size
        self._capacities = self.manifest.capacities(config)
        self._lengths = [0] * limits.slots
        self._executor = open_executor(artefact, self.manifest, config, limits.slots)

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [S, V] after the last token of each sequence, in the batch's order.

        Raises:
            ValueError: results are wanted of more than the last token, which the graphs do not give, or with an
                adapter.
        """
        if any(step.adapter for step in batch):
            raise ValueError("no adapter is loaded: this backend serves none")
        if any(step.wanted != 1 for step in batch):
            raise ValueError("the graphs give the logits of the last token alone")
        for step in batch:
            self._lengths[step.slot] = step.start
        logits_SV = np.empty((len(batch), self.vocab_size), np.float32)
        for launch in plan(batch, self._lengths, self._capacities, self.manifest.max_sequences, self.manifest.chunk):
            logits_BV = self._executor.run(launch.phase, launch.first, launch.ids_BT, launch.positions_BT)
            for row, place in launch.results:
                logits_SV[place] = logits_BV[row]
        for step in batch:
            self._lengths[step.slot] = step.start + len(step.token_ids)
        return logits_SV

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:  # noqa: ARG002 - it cannot
        """The graphs end in logits.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "a TensorRT artefact gives no hidden states", remedy="serve the checkpoint with --backend cpu"
        )

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values."""
        return self._executor.kv_bytes()

    def copy_slot(self, source: int, target: int, tokens: int) -> None:
        """Make `target` hold the first `tokens` tokens of what `source` holds."""
        self._executor.copy_row(source, target)
        self._lengths[target] = tokens

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        self._lengths[slot] = 0

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        self._executor.close()
