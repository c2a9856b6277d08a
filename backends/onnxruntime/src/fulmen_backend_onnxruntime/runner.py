"""Serving an artefact with ONNX Runtime: NumPy in, NumPy out, and the caches updated where they lie. Imports no torch.

Legend: S sequences in the step, B sequences in one run of the graph, T tokens of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.artefact import FORMAT, GRAPH_FILE
from fulmen_backend_onnxruntime.kv_buffers import KVBuffers
from fulmen_backend_onnxruntime.rows import Block, Rows
from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.export.manifest import Manifest, cache_names, read_manifest
from fulmen_core.model.config_file import load_config
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


class OnnxRunner:
    """A `fulmen_core.runner.Runner` over an artefact that the "onnx" exporter wrote.

    Sequences with one token run together; prompts that begin run together where padding costs little; a prompt that
    goes on runs alone. `limits` is what was asked for, with the context cut to the positions that the artefact holds
    angles for.

    Args:
        artefact: the folder.
        limits: what the engine will ask for at most; all cache memory is reserved here.

    Raises:
        UserError, CapabilityError: the folder is missing, or no ONNX artefact.
        CorruptArtefact: a file is missing, truncated or altered, or ONNX Runtime cannot load it.
    """

    def __init__(self, artefact: Path, limits: EngineLimits) -> None:
        manifest = read_manifest(artefact, FORMAT, Manifest, (GRAPH_FILE,))
        config = load_config(artefact)
        if not manifest.is_of(LayerPlan.of(config)):
            raise CorruptArtefact("the manifest and the config describe different layers", where=str(artefact))
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        self._session = _open_session(artefact / GRAPH_FILE, limits.threads)
        self.layout = CacheLayout(limits.slots)
        self._kv = KVBuffers(config, self.limits)
        self._rows = Rows(limits.slots)
        self._lengths = [0] * limits.slots
        self._binding = lru_cache(maxsize=64)(self._bind_caches)

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec`, and the slack of the window caches."""
        return self._kv.nbytes

    def copy_slot(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 - a row is copied whole
        """Make `target` hold what `source` holds, as far as its first `tokens` tokens."""
        self._kv.copy(self._rows.row_of(source), self._rows.row_of(target), self._lengths[source])
        self._lengths[target] = self._lengths[source]

    def copy_page(self, source: int, target: int) -> None:  # noqa: ARG002 - there are none
        """There are no pages.

        Raises:
            ValueError: always.
        """
        raise ValueError("this runner has no pages")

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:  # noqa: ARG002 - it cannot
        """The artefact's graph ends in logits.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "an ONNX artefact gives no hidden states", remedy="serve the checkpoint with --backend cpu"
        )

    def load_adapter(self, directory: Path) -> int:  # noqa: ARG002 - it cannot
        """The artefact's graph has no place for one.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "the onnxruntime backend serves no adapters", remedy="serve the checkpoint with --backend cpu"
        )

    def unload_adapter(self, number: int) -> None:
        """Nothing to do: none is ever loaded."""

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        self._lengths[slot] = 0

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        for name in ("_binding", "_session", "_kv"):
            vars(self).pop(name, None)

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [S, V] after the last token of each sequence, in the batch's order.

        Raises:
            ValueError: results are wanted of more than the last token, which the graph does not give, or with an
                adapter.
        """
        if any(step.adapter for step in batch):
            raise ValueError("no adapter is loaded: this backend serves none")
        if any(step.wanted != 1 for step in batch):
            raise ValueError("the graph gives the logits of the last token alone")
        place = {step.slot: index for index, step in enumerate(batch)}
        logits_SV = np.empty((len(batch), self.vocab_size), np.float32)
        for steps in _runs(batch):
            for step in steps:
                self._lengths[step.slot] = step.start
            by_slot = {step.slot: step for step in steps}
            block = self._adjoin(by_slot)
            logits_BV = self._run(block, [by_slot[slot] for slot in block.slots])
            logits_SV[[place[slot] for slot in block.slots]] = logits_BV
            for step in steps:
                self._lengths[step.slot] = step.start + len(step.token_ids)
        return logits_SV

    def _adjoin(self, by_slot: dict[int, SequenceStep]) -> Block:
        lengths = [self._lengths[slot] for slot in self._rows.slots]
        block = self._rows.adjoin(by_slot)
        for one, other in block.swaps:
            self._kv.swap((one, other), (lengths[one], lengths[other]))
            lengths[one], lengths[other] = lengths[other], lengths[one]
        return block

    def _run(self, block: Block, steps: Sequence[SequenceStep]) -> NDArray[np.float32]:
        tokens = max(len(step.token_ids) for step in steps)
        ids_BT = np.zeros((len(steps), tokens), np.int64)
        for row_T, step in zip(ids_BT, steps, strict=True):
            row_T[: len(step.token_ids)] = step.token_ids
        ends_B = np.array([step.start + len(step.token_ids) for step in steps])
        mask_BS = (np.arange(ends_B.max()) < ends_B[:, None]).astype(np.int64)
        logits_B1V = np.empty((len(steps), 1, self.vocab_size), np.float32)
        binding = self._binding(block.first, len(steps))
        _bind(binding.bind_input, "input_ids", ids_BT)
        _bind(binding.bind_input, "attention_mask", mask_BS)
        _bind(binding.bind_output, "logits", logits_B1V)
        self._session.run_with_iobinding(binding)
        return logits_B1V[:, 0]

    def _bind_caches(self, first: int, count: int) -> Any:
        binding = self._session.io_binding()
        arrays = self._kv.arrays
        names = zip(cache_names("past_key_values", len(arrays)), cache_names("present", len(arrays)), strict=True)
        for (past, present), pair in zip(names, arrays, strict=True):
            for past_name, present_name, array in zip(past, present, pair, strict=True):
                # Input and output are the same memory: the operator appends in place.
                _bind(binding.bind_input, past_name, array[first : first + count])
                _bind(binding.bind_output, present_name, array[first : first + count])
        return binding


def _runs(batch: Sequence[SequenceStep]) -> Iterator[list[SequenceStep]]:
    """Divide a step into what one run of the graph takes: single tokens, beginnings, or one sequence that goes on."""
    single = [step for step in batch if len(step.token_ids) == 1]
    if single:
        yield single
    chunks = [step for step in batch if len(step.token_ids) > 1]
    yield from ([step] for step in chunks if step.start > 0)
    group: list[SequenceStep] = []
    for step in sorted((step for step in chunks if step.start == 0), key=lambda step: len(step.token_ids)):
        # the last of a group is the longest, to which the others are padded
        if group and sum(len(s.token_ids) for s in group) < 0.8 * len(group) * len(step.token_ids):
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _open_session(graph: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised; printing them, too, would say everything twice
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        reason = " ".join(str(error).split())
        raise CorruptArtefact("ONNX Runtime cannot load the graph", where=str(graph), remedy=reason) from error
