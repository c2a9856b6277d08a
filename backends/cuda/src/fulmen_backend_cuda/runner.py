"""Serving a checkpoint on a GPU: mixed steps over paged caches, decode steps as CUDA graphs.

Legend: R wanted rows, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulmen_backend_cuda.decode_graphs import DecodeGraphs, decode_sizes
from fulmen_backend_cuda.experts import make_mixes, needs_host
from fulmen_backend_cuda.forward import Forward
from fulmen_backend_cuda.fp8 import why_unaligned
from fulmen_backend_cuda.paged_attention import choose_attention
from fulmen_backend_cuda.paged_cache import PagedCache
from fulmen_backend_cuda.step_parts import PLAIN, compiled, why_plain
from fulmen_backend_cuda.step_plan import StepPlanner, place
from fulmen_backend_cuda.support import Support
from fulmen_core.adapters.adapted_products import AdaptedProducts
from fulmen_core.adapters.loaded import LoadedAdapters
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.model.kv import CacheSpec
from fulmen_core.paged_steps import paged_layout, pages_of, refuse_outside, refuse_unfit
from fulmen_core.runner import EngineLimits, SequenceStep

#: Positions of a page, and what rings are rounded up to: keys that the decode kernel scores at once.
_BLOCK_TOKENS = 64


class CudaRunner:
    """A `fulmen_core.runner.Runner` on a GPU.

    `limits` is what was asked for, with the context cut to the positions that the model was made for.

    Args:
        model_dir: a model directory.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        dtype: of weights, arithmetic and cache.
        quantize: "fp8" keeps experts in 8-bit floats and rounds what they multiply; None does not.
        device: "cuda", or "cpu" with PyTorch's operations in the place of kernels.
        support: of the device.
        padded: whether decode steps run in a few fixed sizes, as CUDA graphs on a GPU; None: on a GPU.
        compiles: whether torch compiles what is around attention, before the first step; None: on a GPU.

    Raises:
        UserError, CorruptArtefact: the directory is not a whole model.
        CapabilityError: the experts cannot be had in 8 bits, or the model does not fit into the device's memory.
    """

    def __init__(
        self,
        model_dir: Path,
        limits: EngineLimits,
        dtype: Dtype,
        *,
        quantize: Quantization | None,
        device: str,
        support: Support,
        padded: bool | None = None,
        compiles: bool | None = None,
    ) -> None:
        config = load_config(model_dir)
        if quantize is not None:
            _refuse_unaligned(config)
        torch_dtype: torch.dtype = getattr(torch, dtype)
        self._device = torch.device(device)
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        self.layout = paged_layout(self.cache, self.limits, page_tokens=_BLOCK_TOKENS, block_tokens=_BLOCK_TOKENS)
        attention = choose_attention(torch_dtype, config.head_dim, _BLOCK_TOKENS, support)
        model = load_model(model_dir, torch_dtype).requires_grad_(False)
        try:
            blocks = [model.block(layer.index) for layer in model.plan]
            mixes = make_mixes(blocks, support, self._device, fp8=quantize is not None)
            model.to(self._device)
            self._kv = PagedCache(
                config,
                self.layout,
                self.limits,
                block_tokens=_BLOCK_TOKENS,
                dtype=torch_dtype,
                device=self._device,
            )
        except torch.OutOfMemoryError as error:
            raise CapabilityError(
                f"the model and {self.layout.pages} pages of its cache do not fit into the memory of {device}",
                remedy="reserve less cache, or quantise to fp8",
            ) from error
        wanted = support.kernels if compiles is None else compiles
        why = why_plain(config, torch_dtype, self._device) if wanted else "not asked for"
        parts = PLAIN if why else compiled()
        self._forward = Forward(model, mixes, self._kv, attention, self.limits.max_context, parts)
        self._planner = StepPlanner(self.cache, self.layout, self.limits)
        why = why or self._compile()
        self._graphs = self._make_graphs(config, torch_dtype, support, padded)
        self._adapted = AdaptedProducts(model)
        self._adapters = LoadedAdapters(config, self.limits, self._adapted.put, self._adapted.drop)
        self._closed = False
        self.choices = {
            "runner": str(self._device),
            "weights": f"{dtype}, experts in fp8" if quantize is not None else dtype,
            "kv_dtype": dtype,
            "attention": attention.description,
            "decode": self._describe_decode(),
            "compile": f"no: {why}" if why else "yes",
        }

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec` in whole blocks, one more page, one more ring."""
        return self._kv.nbytes

    def copy_slot(self, source: int, target: int, tokens: int) -> None:  # noqa: ARG002 - a ring is copied whole
        """Make the windows of `target` those of `source`."""
        self._refuse_closed()
        refuse_outside("slot", (source, target), self.layout.slots)
        self._kv.copy_slot(source, target)

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` what page `source` is."""
        self._refuse_closed()
        refuse_outside("page", (source, target), self.layout.pages)
        self._kv.copy_page(source, target)

    def load_adapter(self, directory: Path) -> int:
        """Load the LoRA adapter in a PEFT folder: see `fulmen_core.runner.Runner.load_adapter`."""
        self._refuse_closed()
        return self._adapters.load(directory)

    def unload_adapter(self, number: int) -> None:
        """Forget an adapter. Idempotent."""
        if not self._closed:
            self._adapters.unload(number)

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`: nothing to do, as nothing that lies there is read by the next."""

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        self._closed = True
        for name in ("_forward", "_graphs", "_kv", "_adapted", "_adapters"):
            vars(self).pop(name, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [R, V] after the wanted tokens, in the batch's order.

        Raises:
            ValueError: a token, slot, page or position is not what `limits`, `layout` and the vocabulary allow, or an
                adapter is not loaded; nothing was computed.
        """
        pages_S = self._check(batch)
        size = self._graph_size(batch)
        if self._graphs is not None and size is not None:
            self._adapted.begin(())
            padded_SV = self._graphs.logits(self._planner.padded(batch, pages_S, size))
            return self._to_host(padded_SV.narrow(0, 0, len(batch)))
        adapted = self._begin_adapters(batch)
        placed = place(self._planner.plan(batch, pages_S), self._device)
        return self._to_host(self._forward.logits(placed, adapted=adapted))

    @torch.inference_mode()
    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but the final normed hidden states, float32 [R, D]."""
        pages_S = self._check(batch)
        adapted = self._begin_adapters(batch)
        hidden_RD = self._forward.hidden(place(self._planner.plan(batch, pages_S), self._device), adapted=adapted)
        return self._to_host(hidden_RD.float())

    def _make_graphs(
        self, config: ModelConfig, dtype: torch.dtype, support: Support, padded: bool | None
    ) -> DecodeGraphs | None:
        if not (support.kernels if padded is None else padded):
            return None
        top_k, experts = config.num_experts_per_tok, config.num_experts
        sizes = [
            size
            for size in decode_sizes(self.limits.max_sequences)
            if not experts or not needs_host(size, top_k, experts, dtype, support)
        ]
        return DecodeGraphs(self._forward.logits, sizes, self._device) if sizes else None

    def _describe_decode(self) -> str:
        if self._graphs is None:
            return "kernel by kernel"
        return "padded, kernel by kernel" if self._device.type == "cpu" else "CUDA graphs of padded steps"

    def _graph_size(self, batch: Sequence[SequenceStep]) -> int | None:
        """The size that a step is filled up to, if it is one of single tokens without adapters."""
        plain = all(len(step.token_ids) == 1 and not step.adapter for step in batch)
        return self._graphs.size_for(len(batch)) if self._graphs is not None and plain else None

    def _check(self, batch: Sequence[SequenceStep]) -> list[Sequence[int]]:
        """The pages of each sequence of a step that fits; a kernel that reads beyond its memory ends the process."""
        self._refuse_closed()
        tokens_N = np.fromiter((token for step in batch for token in step.token_ids), np.int64)
        pages_S = [pages_of(step, self.layout, self.limits) for step in batch]
        refuse_unfit(batch, tokens_N, pages_S, limits=self.limits, layout=self.layout, vocab_size=self.vocab_size)
        self._adapters.refuse_unknown(batch)
        return pages_S

    def _to_host(self, x_RV: Tensor) -> NDArray[np.float32]:
        """A copy that the caller owns: pinned memory, which is used again when nobody holds the array any more."""
        pinned = self._device.type == "cuda"
        host_RV = torch.empty(x_RV.shape, dtype=torch.float32, pin_memory=pinned)
        host_RV.copy_(x_RV, non_blocking=pinned)
        if pinned:
            torch.cuda.current_stream(self._device).synchronize()
        array: NDArray[np.float32] = host_RV.numpy()
        return array

    @torch.inference_mode()
    def _compile(self) -> str:
        """Have every kind of layer compiled, for one row, which has a program of its own, and for any other number.

        Returns why the parts stay plain after all, or an empty text.
        """
        from torch._dynamo.exc import FailOnRecompileLimitHit  # seconds to import

        try:
            for rows in (2, 1):
                self._forward.logits(place(self._planner.padded([], [], rows), self._device))
        except FailOnRecompileLimitHit:
            self._forward.parts = PLAIN
            return "torch has compiled as many kinds of layers as it may in one process"
        return ""

    def _begin_adapters(self, batch: Sequence[SequenceStep]) -> bool:
        """Say which rows of the plan have which adapters; whether any has."""
        self._adapted.begin(sorted(batch, key=lambda step: len(step.token_ids) > 1))
        return any(step.adapter for step in batch)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ValueError("the runner is closed")


def _refuse_unaligned(config: ModelConfig) -> None:
    if not config.num_experts:
        raise CapabilityError("the model has no experts to keep in fp8", remedy="leave --quantize out")
    if reason := why_unaligned(config.hidden_size, config.moe_intermediate_size):
        raise CapabilityError(
            f"the model's experts cannot be kept in fp8: size {reason}", remedy="leave --quantize out"
        )
