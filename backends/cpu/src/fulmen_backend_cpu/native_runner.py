"""Serving a checkpoint with the native kernels: a whole mixed step is one call.

Legend: S sequences in the step, N tokens, R tokens whose results are wanted, V vocabulary, D model width.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_backend_cpu.native_adapters import AdapterPacker
from fulmen_backend_cpu.native_library import Format, check, features, load_library
from fulmen_backend_cpu.native_weights import WeightPacker, make_layer_shapes, make_shape, unsupported
from fulmen_backend_cpu.threads import choose_threads
from fulmen_core.adapters.loaded import LoadedAdapters
from fulmen_core.backend import Dtype, KVDtype, Quantization
from fulmen_core.model.checkpoint import load_config, load_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.native_build import NativeUnavailable
from fulmen_core.paged_steps import paged_layout, pages_of, refuse_outside, refuse_unfit
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.softmax_draw import inverse_temperatures

logger = logging.getLogger(__name__)

#: Positions in a page: what attention scores at once, so that pages change no result.
_PAGE_TOKENS = 128
#: Caches are allocated in blocks of so many tokens.
_BLOCK_TOKENS = 32

_FORMATS = {"float32": Format.FLOAT32, "bfloat16": Format.BFLOAT16, "int8": Format.INT8}


class NativeRunner:
    """A `fulmen_core.runner.Runner` over the compiled kernels.

    A sequence's logits do not depend on what else is in the batch, bit for bit, while each step gives it one token; how
    a prompt is cut into chunks moves them by rounding.

    Args:
        model_dir: a model directory.
        limits: what the engine will ask for at most; all memory is reserved here.
        dtype: of products, "float32" or "bfloat16"; of the cache too unless `kv_dtype` says otherwise.
        quantize: "int8" keeps weights in 8 bits with a scale for each output, and rounds activations to 8 bits with a
            scale for each group of up to 128; None does not.
        kv_dtype: of the cache: "float32", "bfloat16", "int8" (a scale for each token and head); None takes `dtype`.

    Raises:
        UserError, CorruptArtefact: the directory is not a whole model.
        NativeUnavailable: the kernels cannot be had here, or cannot run this model.
        MemoryError: there is not enough memory.
    """

    def __init__(
        self,
        model_dir: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> None:
        config = load_config(model_dir)
        if reason := unsupported(config):
            raise NativeUnavailable(reason)
        self._library = load_library()
        self._handle: int | None = None
        self._latest: NDArray[np.float32] | None = None  # logits, of which the kernels know the tops
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        self._width = config.hidden_size
        threads, why = choose_threads(limits.threads)
        weights, kv = _FORMATS[quantize or dtype], _FORMATS[kv_dtype or dtype]
        self.layout = paged_layout(
            self.cache, self.limits, page_tokens=_PAGE_TOKENS, block_tokens=_BLOCK_TOKENS, batch_invariant=True
        )
        self.choices = {
            "runner": "native",
            "runner_reason": f"compiled kernels: {features(self._library)}",
            "weights": quantize or dtype,
            "kv_dtype": kv_dtype or dtype,
            "threads": str(threads),
            "threads_reason": why,
        }
        model = load_model(model_dir, getattr(torch, dtype)).requires_grad_(False)
        shape = make_shape(config, self.limits, self.layout, weights, kv)
        self._handle = self._library.fulmen_new(ctypes.byref(shape), make_layer_shapes(config), threads)
        check(self._library, not self._handle)
        try:
            WeightPacker(self._library, self._handle, partial(check, self._library)).pack(
                model, self.limits.max_context
            )
        except BaseException:
            self.close()
            raise
        packer = AdapterPacker(self._library, self._handle, config)
        self._adapters = LoadedAdapters(config, self.limits, packer.put, packer.drop)

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec`, with tokens rounded up to 32, heads to 16."""
        return int(self._library.fulmen_kv_bytes(self._handle))

    def adapter_bytes(self) -> int:
        """Bytes of the adapters that are loaded."""
        return int(self._library.fulmen_adapter_bytes(self._handle))

    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return int(self._library.fulmen_weight_bytes(self._handle))

    def stalls(self) -> int:
        """How often a thread was left out for a while because the system did not schedule it."""
        return int(self._library.fulmen_stalls(self._handle))

    def copy_slot(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 - a ring is copied whole
        """Make the windows of `target` those of `source`."""
        self._refuse_closed()
        refuse_outside("slot", (source, target), self.layout.slots)
        self._library.fulmen_copy_slot(self._handle, source, target)

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` what page `source` is."""
        self._refuse_closed()
        refuse_outside("page", (source, target), self.layout.pages)
        self._library.fulmen_copy_page(self._handle, source, target)

    def load_adapter(self, directory: Path) -> int:
        """Load the LoRA adapter in a PEFT folder: see `fulmen_core.runner.Runner.load_adapter`."""
        self._refuse_closed()
        return self._adapters.load(directory)

    def unload_adapter(self, number: int) -> None:
        """Give an adapter's memory back. Idempotent."""
        if self._handle is not None:
            self._adapters.unload(number)

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`: nothing to do, as nothing that lies there is read by the next."""

    def poison(self, slot: int, pages: Sequence[int] = ()) -> None:
        """Fill all that a free slot and free pages hold with NaN, so that a test sees whether they are read."""
        self._refuse_closed()
        for page in pages if self.layout.pages else (0,):
            self._library.fulmen_poison(self._handle, slot, page)

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        if self._handle is not None:
            self._library.fulmen_delete(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: logits after the wanted tokens, float32 [R, V], in the batch's order and read-only.

        Raises:
            ValueError: a token, slot, page or position is not what `limits`, `layout` and the vocabulary allow, or an
                adapter is not loaded; nothing was computed.
        """
        self._latest = self._step(batch, self.vocab_size, hidden=False)
        self._latest.flags.writeable = False  # what is known of them stays true
        return self._latest

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but the final normed hidden states, float32 [R, D]."""
        return self._step(batch, self._width, hidden=True)

    def draw(
        self, logits_SV: NDArray[np.float32], temperature_S: NDArray[np.float64], uniform_S: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """As `fulmen_core.softmax_draw.draw_tokens`, on all threads.

        Raises:
            ValueError: the runner is closed, or the arrays do not fit each other and the vocabulary.
        """
        rows = len(logits_SV)
        if self._handle is None:
            raise ValueError("the runner is closed")
        if logits_SV.shape != (rows, self.vocab_size) or not len(temperature_S) == len(uniform_S) == rows:
            raise ValueError(
                f"logits {logits_SV.shape} do not fit {len(temperature_S)} temperatures and the vocabulary"
            )
        logits_SV = np.ascontiguousarray(logits_SV, np.float32)
        inverse_S = inverse_temperatures(temperature_S)
        uniform_S = np.ascontiguousarray(uniform_S, np.float64)
        tokens_S = np.empty(rows, np.int32)
        check(
            self._library,
            self._library.fulmen_draw(
                self._handle,
                rows,
                logits_SV.ctypes.data,
                logits_SV is self._latest,
                inverse_S.ctypes.data,
                uniform_S.ctypes.data,
                tokens_S.ctypes.data,
            ),
        )
        return tokens_S

    def _step(self, batch: Sequence[SequenceStep], columns: int, *, hidden: bool) -> NDArray[np.float32]:
        counts_S = [len(step.token_ids) for step in batch]
        tokens_N = np.fromiter((token for step in batch for token in step.token_ids), np.int32, sum(counts_S))
        pages_S = [pages_of(step, self.layout, self.limits) for step in batch]
        self._refuse_closed()
        refuse_unfit(batch, tokens_N, pages_S, limits=self.limits, layout=self.layout, vocab_size=self.vocab_size)
        self._adapters.refuse_unknown(batch)
        wanted_S = [step.wanted for step in batch]
        table_6S = np.array(
            [
                [step.slot for step in batch],
                [step.start for step in batch],
                counts_S,
                wanted_S,
                [len(pages) for pages in pages_S],
                [step.adapter for step in batch],
            ],
            np.int32,
        )
        pages = np.fromiter((page for pages in pages_S for page in pages), np.int32)
        results = np.empty((sum(wanted_S), columns), np.float32)
        check(
            self._library,
            self._library.fulmen_step(
                self._handle,
                len(batch),
                table_6S.ctypes.data,
                tokens_N.ctypes.data,
                pages.ctypes.data,
                hidden,
                results.ctypes.data,
            ),
        )
        return results

    def _refuse_closed(self) -> None:
        if self._handle is None:
            raise ValueError("the runner is closed")
