"""Serving an artefact with ONNX Runtime: NumPy in, NumPy out, and the caches updated where they lie. Imports no torch.

Legend: S sequences in the step, B sequences in one run of the graph, T tokens of each, L wanted results of each, R
wanted results of the step, A the width of a result: V vocabulary or D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.artefact import DATA_FILE, FORMAT, GRAPH_FILE, HIDDEN, WANTED
from fulmen_backend_onnxruntime.kv_buffers import Dropped, KVBuffers
from fulmen_backend_onnxruntime.native_operators import choose_kernels
from fulmen_backend_onnxruntime.providers import choose_provider, nodes_by_provider
from fulmen_backend_onnxruntime.rows import Block, Rows
from fulmen_backend_onnxruntime.session import bind, open_session
from fulmen_backend_onnxruntime.step_runs import runs_of
from fulmen_core.errors import CorruptArtefact
from fulmen_core.export.manifest import Manifest, cache_names, read_manifest
from fulmen_core.model.config_file import load_config
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.refusals import WithoutAdapters, WithoutPages
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


class OnnxRunner(WithoutPages, WithoutAdapters):
    """A `fulmen_core.runner.Runner` over an artefact that the "onnx" exporter wrote.

    Sequences with one token run together, and chunks of prompts do where padding costs little; where layers borrow keys
    and values, a prompt that goes on runs alone. `limits` is what was asked for, with the context cut to the positions
    that the artefact holds angles for.

    Args:
        artefact: the folder.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        provider: the execution provider, see `choose_provider`.
        kernels: whose compute what is quantised, see `choose_kernels`.

    Raises:
        UserError, CapabilityError: the folder is missing, or no ONNX artefact, or the provider or the kernels are not
            to be had.
        CorruptArtefact: a file is missing, truncated or altered, or ONNX Runtime cannot load it.
    """

    def __init__(
        self, artefact: Path, limits: EngineLimits, provider: str | None = None, kernels: str | None = None
    ) -> None:
        chosen = choose_provider(provider)
        self.manifest = manifest = read_manifest(artefact, FORMAT, Manifest, (GRAPH_FILE, DATA_FILE))
        wanted_kernels = choose_kernels(kernels, chosen.name, quantized=manifest.quantize is not None)
        config = load_config(artefact)
        plan = LayerPlan.of(config)
        if not manifest.is_of(plan):
            raise CorruptArtefact("the manifest and the config describe different layers", where=str(artefact))
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size, self._width = config.vocab_size, config.hidden_size
        computing, operators = wanted_kernels.compiled()
        self._session: Any = open_session(artefact / GRAPH_FILE, limits.threads, chosen.name, operators=operators)
        self.choices = {
            "runner": "onnxruntime",
            "provider": chosen.name,
            "provider_reason": chosen.reason,
            "nodes": nodes_by_provider(self._session),
            "weights": manifest.quantize or manifest.dtype,
            "kv_dtype": manifest.dtype,
            "threads": str(limits.threads or "onnxruntime's choice"),
            **computing.described(),
        }
        self.layout = CacheLayout(limits.slots, rewind=limits.draft_tokens)
        self._kv = KVBuffers(config, self.limits, manifest.dtype)
        self._ragged = all(layer.owns_kv for layer in plan)
        self._rows = Rows(limits.slots)
        self._lengths = [0] * limits.slots
        self._dropped: dict[int, Dropped] = {}  # by slot
        self._blocks: dict[tuple[int, ...], Block] = {}  # by slots, while no row moves
        self._bound = lru_cache(maxsize=64)(self._bind)
        widths = {"logits": self.vocab_size, HIDDEN: self._width}
        self._results = {name: np.empty((limits.slots, width), np.float32) for name, width in widths.items()}

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec`, and the slack of the window caches."""
        return self._kv.nbytes

    def copy_slot(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 - a row is copied whole
        """Make `target` hold what `source` holds, as far as its first `tokens` tokens."""
        self._kv.copy(self._rows.row_of(source), self._rows.row_of(target), self._lengths[source])
        self._lengths[target] = self._lengths[source]
        self._dropped.pop(target, None)
        if source in self._dropped:
            self._dropped[target] = self._dropped[source]

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        self._lengths[slot] = 0
        self._dropped.pop(slot, None)

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        for name in ("_bound", "_session", "_kv"):
            vars(self).pop(name, None)

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [R, V] after the wanted tokens, in the batch's order.

        Raises:
            ValueError: a token, slot or position is not what `limits`, `layout` and the vocabulary allow, more results
                are wanted than there are tokens, or there is an adapter; nothing was computed.
        """
        return self._step(batch, "logits", self.vocab_size)

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but the final normed hidden states, float32 [R, D]."""
        return self._step(batch, HIDDEN, self._width)

    def _step(self, batch: Sequence[SequenceStep], output: str, width: int) -> NDArray[np.float32]:
        self._refuse(batch)
        results_RA = np.empty((sum(step.wanted for step in batch), width), np.float32)
        ends, end = {}, 0  # where the results of a slot end
        for step in batch:
            end += step.wanted
            ends[step.slot] = end - step.start - len(step.token_ids)
        for steps in self._runs(batch):
            block = self._adjoin(tuple(step.slot for step in steps))
            by_slot = {step.slot: step for step in steps}
            ordered = [by_slot[slot] for slot in block.slots]
            found_BLA = self._run(block, ordered, output, width)
            for step, found_LA in zip(ordered, found_BLA, strict=True):
                length = self._lengths[step.slot] = step.start + len(step.token_ids)
                if step.wanted:
                    end = ends[step.slot] + length
                    results_RA[end - step.wanted : end] = found_LA[-step.wanted :]
        return results_RA

    def _refuse(self, batch: Sequence[SequenceStep]) -> None:
        """Check what the graph would take on trust: to it a negative token, say, is padding."""
        if "_session" not in vars(self):
            raise ValueError("the runner is closed")
        slots = [step.slot for step in batch]
        if not batch or len(set(slots)) < len(slots) or not 0 <= min(slots) <= max(slots) < self.layout.slots:
            raise ValueError(f"slots {slots} are not different ones of 0 to {self.layout.slots - 1}")
        for step in batch:
            count = len(step.token_ids)
            if step.adapter:
                raise ValueError("no adapter is loaded: this backend serves none")
            if not 1 <= step.wanted <= count:
                raise ValueError(f"{step.wanted} results are wanted of {count} tokens")
            if not 0 <= min(step.token_ids) <= max(step.token_ids) < self.vocab_size:
                raise ValueError(f"a token is outside the {self.vocab_size} of the model")
            if not 0 <= step.start <= self.limits.max_context - count:
                raise ValueError(f"position {step.start + count - 1} is outside the {self.limits.max_context} reserved")

    def _runs(self, batch: Sequence[SequenceStep]) -> Iterator[list[SequenceStep]]:
        """The runs of a step, with sequences ready at their starts, and drops kept that may have to be taken back."""
        for step in batch:
            self._take_back(step)
        if not self.layout.rewind:
            yield from runs_of(batch, ragged=self._ragged, room=self.limits.max_context)
            return
        early, late = [], []
        for step in batch:
            end = step.start + len(step.token_ids)
            drop = self._kv.last_drop(end)
            if drop > max(step.start, end - self.layout.rewind):
                # what it drops must be there: the tokens before it are computed first
                before = drop - 1 - step.start
                left = len(step.token_ids) - before
                if before:
                    early.append(step._replace(token_ids=step.token_ids[:before], wanted=max(0, step.wanted - left)))
                late.append(
                    (
                        step._replace(
                            start=step.start + before,
                            token_ids=step.token_ids[before:],
                            wanted=min(step.wanted, left),
                        ),
                        drop,
                    )
                )
        yield from runs_of(early, ragged=self._ragged, room=self.limits.max_context)
        for step, drop in late:
            self._dropped[step.slot] = self._kv.to_be_dropped(self._rows.row_of(step.slot), drop)
        slots = {step.slot for step, _ in late}
        rest = [step for step in batch if step.slot not in slots] + [step for step, _ in late]
        yield from runs_of(rest, ragged=self._ragged, room=self.limits.max_context)

    def _take_back(self, step: SequenceStep) -> None:
        length, self._lengths[step.slot] = self._lengths[step.slot], step.start
        dropped = self._dropped.get(step.slot)
        if dropped is not None and step.start < dropped.length <= length:
            if step.start:
                self._kv.take_back(self._rows.row_of(step.slot), dropped, step.start)
            del self._dropped[step.slot]

    def _adjoin(self, slots: tuple[int, ...]) -> Block:
        if slots not in self._blocks:
            lengths = [self._lengths[slot] for slot in self._rows.slots]
            block = self._rows.adjoin(slots)
            for one, other in block.swaps:
                self._kv.swap((one, other), (lengths[one], lengths[other]))
                lengths[one], lengths[other] = lengths[other], lengths[one]
            if block.swaps:
                self._blocks.clear()
            self._blocks[slots] = block
        return self._blocks[slots]

    def _run(self, block: Block, steps: Sequence[SequenceStep], output: str, width: int) -> NDArray[np.float32]:
        """Results [B, L, A] of a run, valid until the next."""
        tokens = max(len(step.token_ids) for step in steps)
        wanted = max(1, *(step.wanted for step in steps))
        bound = self._bound(block.first, len(steps), tokens, output)
        for row_T, step in zip(bound.ids_BT, steps, strict=True):
            row_T[: len(step.token_ids)] = step.token_ids
            row_T[len(step.token_ids) :] = -1  # padding
        bound.lengths_B1[:, 0] = [step.start + len(step.token_ids) for step in steps]
        bound.wanted_1[0] = wanted
        results_BLA = bound.results_B1A
        if results_BLA is None:
            results_BLA = np.empty((len(steps), wanted, width), np.float32)
            bind(bound.binding.bind_output, output, results_BLA)
        self._session.run_with_iobinding(bound.binding)
        return results_BLA

    def _bind(self, first: int, count: int, tokens: int, output: str) -> _Bound:
        """Bind the caches of adjoining rows, and arrays for what else a run is given, once and for all such runs.

        Each output has bindings of its own: what was bound to the other may be gone when a run would write it. While
        single tokens are computed, all runs write to the same memory: to bind new memory takes longer than to copy.
        """
        results_SA = self._results[output]
        bound = _Bound(
            self._session.io_binding(),
            np.empty((count, tokens), np.int64),
            np.empty((count, 1), np.int64),
            np.empty(1, np.int64),
            results_SA[:count, None] if tokens == 1 else None,
        )
        if bound.results_B1A is not None:
            bind(bound.binding.bind_output, output, bound.results_B1A)
        inputs = {"input_ids": bound.ids_BT, "attention_mask": bound.lengths_B1, WANTED: bound.wanted_1}
        arrays = self._kv.arrays
        names = zip(cache_names("past_key_values", len(arrays)), cache_names("present", len(arrays)), strict=True)
        for name, array in inputs.items():
            bind(bound.binding.bind_input, name, array)
        for (past, present), pair in zip(names, arrays, strict=True):
            for past_name, present_name, array in zip(past, present, pair, strict=True):
                # Input and output are the same memory: the operator appends in place.
                bind(bound.binding.bind_input, past_name, array[first : first + count])
                bind(bound.binding.bind_output, present_name, array[first : first + count])
        return bound


class _Bound(NamedTuple):
    """What is bound for runs of certain rows, and so many tokens of each; results where each has one."""

    binding: Any
    ids_BT: NDArray[np.int64]
    lengths_B1: NDArray[np.int64]
    wanted_1: NDArray[np.int64]
    results_B1A: NDArray[np.float32] | None
