"""Serving an artefact with OpenVINO: NumPy in, NumPy out, one run of the graph for a mixed step. Imports no torch.

Legend: S sequences in the step, N tokens, R tokens whose results are wanted, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from fulmen_backend_openvino import names
from fulmen_backend_openvino.artefact import FORMAT, GRAPH_FILE, WEIGHTS_FILE
from fulmen_backend_openvino.compiling import ACTIVATION_GROUP, DEVICE, compile_for_cpu, core
from fulmen_backend_openvino.kv_blocks import KVBlocks, Span
from fulmen_backend_openvino.paging import BEGINS, ROWS, paged_graph
from fulmen_core.backend import Dtype, KVDtype
from fulmen_core.errors import CorruptArtefact
from fulmen_core.export.manifest import Manifest, read_manifest
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.refusals import WithoutAdapters
from fulmen_core.runner import EngineLimits, SequenceStep


class OpenVinoRunner(WithoutAdapters):
    """A `fulmen_core.runner.Runner` over an artefact that the "openvino" exporter wrote.

    `limits` is what was asked for, with the context cut to the model's. `choices` says what it became.

    Args:
        artefact: the folder.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        dtype: of arithmetic. Weights are expanded to it from what the artefact holds.
        kv_dtype: of keys and values; None: `dtype`.

    Raises:
        UserError, CapabilityError: the folder is missing, or no OpenVINO artefact; the CPU cannot compute in `dtype`.
        CorruptArtefact: a file is missing, truncated or altered, or OpenVINO cannot load it.
    """

    def __init__(
        self, artefact: Path, limits: EngineLimits, dtype: Dtype = "float32", *, kv_dtype: KVDtype | None = None
    ) -> None:
        manifest = read_manifest(artefact, FORMAT, Manifest, (GRAPH_FILE, WEIGHTS_FILE))
        config = load_config(artefact)
        if not manifest.is_of(LayerPlan.of(config)):
            raise CorruptArtefact("the manifest and the config describe different layers", where=str(artefact))
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        self._width = config.hidden_size
        graph = _open_graph(artefact / GRAPH_FILE, config)
        compiled = compile_for_cpu(
            graph, dtype, kv_dtype or dtype, limits.threads, quantized=manifest.quantize is not None
        )
        shapes = {
            value.get_any_name(): (value.get_element_type(), list(value.get_partial_shape())[1:])
            for value in compiled.inputs
        }
        self._kv = KVBlocks(
            self.cache,
            self.limits,
            {
                name: (element, [part.get_length() for part in shape])
                for name, (element, shape) in shapes.items()
                if len(shape) == 3
            },
        )
        self.layout = self._kv.layout
        self._request: Any = compiled.create_infer_request()
        for name, tensor in self._kv.tensors.items():
            self._request.set_tensor(name, tensor)
        self.choices = {
            "runner": "openvino",
            "device": f"{DEVICE}: {core().get_property(DEVICE, 'FULL_DEVICE_NAME')}",
            "weights": manifest.quantize or manifest.dtype,
            "arithmetic": dtype,
            "activations": f"8 bits in groups of {ACTIVATION_GROUP}" if manifest.quantize else dtype,
            "kv_dtype": kv_dtype or dtype,
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
            "attention": f"paged, {self.layout.page_tokens} positions a block",
        }

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec`, windows with room for a chunk, in whole blocks."""
        return self._kv.nbytes

    def copy_slot(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 - a ring is copied whole
        """Make the windows of `target` those of `source`."""
        self._refuse_outside("slot", (source, target), self.layout.slots)
        self._kv.copy_slot(source, target)

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` what page `source` is."""
        self._refuse_outside("page", (source, target), self.layout.pages)
        self._kv.copy_page(source, target)

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`: nothing to do, as nothing that lies there is read by the next."""

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        for name in ("_request", "_kv"):
            vars(self).pop(name, None)

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [R, V] after the wanted tokens, in the batch's order.

        Raises:
            ValueError: a token, slot, page or position is not what `limits`, `layout` and the vocabulary allow, or an
                adapter is asked for; nothing was computed.
        """
        return self._compute(batch, names.LOGITS, self.vocab_size)

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but the final normed hidden states, float32 [R, D]."""
        return self._compute(batch, names.HIDDEN, self._width)

    def _compute(self, batch: Sequence[SequenceStep], output: str, columns: int) -> NDArray[np.float32]:
        self._refuse(batch)
        results = np.empty((sum(step.wanted for step in batch), columns), np.float32)
        for begin in range(0, max(len(step.token_ids) for step in batch), self._kv.chunk):
            self._run(batch, begin, output, results)
        return results

    def _run(self, batch: Sequence[SequenceStep], begin: int, output: str, results: NDArray[np.float32]) -> None:
        """Compute the tokens of each sequence from its `begin`-th on, as many as a chunk holds, into `results`."""
        spans: list[Span] = []
        tokens_N: list[int] = []
        positions_N: list[int] = []
        rows_R: list[int] = []
        places_R: list[int] = []
        place = 0
        for step in batch:
            count = len(step.token_ids)
            end = min(count, begin + self._kv.chunk)
            if begin < end:
                for index in range(max(begin, count - step.wanted), end):
                    rows_R.append(len(tokens_N) + index - begin)
                    places_R.append(place + index - (count - step.wanted))
                tokens_N.extend(step.token_ids[begin:end])
                positions_N.extend(range(step.start + begin, step.start + end))
                spans.append(Span(step.slot, step.start + begin, step.start + end, self._pages_of(step)))
            place += step.wanted
        inputs = self._kv.tables(spans) | {
            names.INPUT_IDS: np.array(tokens_N, np.int64)[:, None],
            names.POSITION_IDS: np.array(positions_N, np.int64)[:, None],
            ROWS: np.array(rows_R or [0], np.int32),  # of a prompt that goes on nothing is wanted
            BEGINS: np.cumsum([0, *(span.end - span.start for span in spans)], dtype=np.int32),
        }
        for name, array in inputs.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        self._request.infer()
        if rows_R:
            results[places_R] = self._request.get_tensor(output).data[:, 0]

    def _pages_of(self, step: SequenceStep) -> Sequence[int]:
        if step.pages is not None:
            return step.pages
        each = self.layout.pages_for(self.limits.max_context)
        return range(step.slot * each, (step.slot + 1) * each)

    def _refuse(self, batch: Sequence[SequenceStep]) -> None:
        """Check everything that the kernels would take on trust."""
        limits = self.limits
        self._refuse_closed()
        counts_S = [len(step.token_ids) for step in batch]
        if not batch or 0 in counts_S:
            raise ValueError("a step needs at least one sequence, and each at least one token")
        if sum(counts_S) > limits.max_step_tokens:
            raise ValueError(f"{sum(counts_S)} tokens are more than the {limits.max_step_tokens} of a step")
        slots = [step.slot for step in batch]
        if len(slots) > limits.max_sequences:
            raise ValueError(f"{len(slots)} sequences are more than the {limits.max_sequences} of a step")
        if min(slots) < 0 or max(slots) >= self.layout.slots or len(set(slots)) < len(slots):
            raise ValueError(f"slots {slots} are not different ones of 0 to {self.layout.slots - 1}")
        for step, count in zip(batch, counts_S, strict=True):
            if step.adapter:
                raise ValueError("no adapter is loaded: this backend serves none")
            if step.start < 0 or step.start + count > limits.max_context:
                raise ValueError(f"position {step.start + count - 1} is outside the {limits.max_context} reserved")
            if not 1 <= step.wanted <= count:
                raise ValueError(f"{step.wanted} results are wanted of {count} tokens")
            self._refuse_outside("token", step.token_ids, self.vocab_size)
            pages, needed = self._pages_of(step), self.layout.pages_for(step.start + count)
            if len(pages) < needed:
                raise ValueError(f"{len(pages)} pages do not hold {step.start + count} tokens")
            self._refuse_outside("page", pages[:needed], self.layout.pages)

    def _refuse_outside(self, kind: str, numbers: Sequence[int], count: int) -> None:
        self._refuse_closed()
        for number in (min(numbers), max(numbers)):
            if not 0 <= number < count:
                raise ValueError(f"{kind} {number} is not one of 0 to {count - 1}")

    def _refuse_closed(self) -> None:
        if "_request" not in vars(self):
            raise ValueError("the runner is closed")


def _open_graph(path: Path, config: ModelConfig) -> openvino.Model:
    try:
        return paged_graph(core().read_model(path), config)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CorruptArtefact("OpenVINO cannot load the graph", where=str(path), remedy=reason) from error
