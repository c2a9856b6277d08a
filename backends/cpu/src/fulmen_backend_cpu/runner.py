"""Serving a checkpoint on the CPU: one forward over all tokens of a mixed step, with the cache in between.

The tokens of all sequences lie flat in one row: projections, feed-forward networks and norms see no sequences and no
padding. Only attention does: sequences with one token attend together, chunks one by one.

Legend: N tokens of the step, S sequences in the step or keys, R tokens whose results are wanted, B sequences with one
token, T tokens of a chunk, D model width, H heads, K kv heads, G = H/K, h head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fulmen_backend_cpu.experts import feed_forward
from fulmen_backend_cpu.kv_cache import KVCache
from fulmen_core.adapters.adapted_products import AdaptedProducts
from fulmen_core.adapters.loaded import LoadedAdapters
from fulmen_core.backend import Dtype
from fulmen_core.model.attention import attend
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerSpec
from fulmen_core.model.masks import Mask, build_mask
from fulmen_core.model.rope import rotary
from fulmen_core.refusals import WithoutPages
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep

#: Up to this many tokens, sequences attend together, padded to the longest; beyond, one by one. Measured with 8
#: sequences, one thread, float32: together 79 against 150 us at 256 tokens, 509 against 411 us at 1,500.
_TOGETHER_TOKENS = 512


@dataclass(frozen=True, slots=True)
class _Decode:
    """The sequences with one token: they come first in the flat row, in the order of their slots."""

    slots: list[int]
    lengths: list[int]
    slots_B: Tensor
    positions_B: Tensor
    valid: dict[int, Tensor | None] | None  # by the number of places: who may see which; None: they attend one by one


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A sequence with several tokens, and where they lie in the flat row."""

    slot: int
    start: int
    end: int
    rows: slice
    masks: dict[int | None, Mask]  # by window


class CpuRunner(WithoutPages):
    """A `fulmen_core.runner.Runner` over PyTorch.

    `limits` is what was asked for, with the context cut to the positions that the model was made for.

    Args:
        model_dir: a model directory.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        dtype: of weights and cache, "float32" or "bfloat16".
        reason: why it is this runner and not the native one, for `choices`.

    Raises:
        UserError, CorruptArtefact: the directory is not a whole model.
    """

    def __init__(
        self, model_dir: Path, limits: EngineLimits, dtype: Dtype = "float32", reason: str = "asked for"
    ) -> None:
        torch_dtype: torch.dtype = getattr(torch, dtype)
        self._model = load_model(model_dir, torch_dtype).requires_grad_(False)
        config = self._model.config
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        self.choices = {"runner": "torch", "runner_reason": reason, "weights": dtype, "kv_dtype": dtype}
        windows = any(group.window is not None for group in self.cache.groups)
        self.layout = CacheLayout(limits.slots, rewind=0 if windows else self.limits.max_context)
        self._kv = KVCache(config, self.limits, torch_dtype)
        self._adapted = AdaptedProducts(self._model)
        self._adapters = LoadedAdapters(config, self.limits, self._adapted.put, self._adapted.drop)

    def kv_bytes(self) -> int:
        """Bytes reserved for keys and values: those of `CacheSpec` for every slot, and no more."""
        return self._kv.nbytes

    def copy_slot(self, source: int, target: int, tokens: int) -> None:
        """Make `target` hold the `tokens` tokens that `source` holds."""
        self._kv.copy(source, target, tokens)

    def load_adapter(self, directory: Path) -> int:
        """Load the LoRA adapter in a PEFT folder: see `fulmen_core.runner.Runner.load_adapter`."""
        return self._adapters.load(directory)

    def unload_adapter(self, number: int) -> None:
        """Forget an adapter. Idempotent."""
        self._adapters.unload(number)

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        self._kv.forget(slot)

    def poison(self, slot: int, pages: Sequence[int] = ()) -> None:  # noqa: ARG002 - there are none
        """Fill all that a free slot holds with NaN, so that a test sees whether it is read."""
        self._kv.fill(slot, torch.nan)

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        for name in ("_model", "_kv", "_adapted", "_adapters"):
            vars(self).pop(name, None)

    @torch.inference_mode()
    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [R, V] after the wanted tokens, in the batch's order."""
        logits_RV: NDArray[np.float32] = self._model.logits(self._wanted(batch)).numpy()
        return logits_RV

    @torch.inference_mode()
    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """As `step`, but the final normed hidden states, float32 [R, D]."""
        hidden_RD: NDArray[np.float32] = self._wanted(batch).float().numpy()
        return hidden_RD

    def _wanted(self, batch: Sequence[SequenceStep]) -> Tensor:
        """The final hidden states of the wanted tokens, [R, D], in the batch's order."""
        order = sorted(range(len(batch)), key=lambda i: (len(batch[i].token_ids) > 1, batch[i].slot))
        steps = [batch[i] for i in order]
        self._adapters.refuse_unknown(steps)
        self._adapted.begin(steps)
        for step in steps:
            if step.start == 0:
                self._kv.forget(step.slot)
        tokens_N = torch.tensor([token for step in steps for token in step.token_ids])
        positions_N = torch.tensor([step.start + i for step in steps for i in range(len(step.token_ids))])
        decode = self._plan_decode([step for step in steps if len(step.token_ids) == 1])
        chunks = self._plan_chunks(steps, skip=len(decode.slots) if decode else 0)

        hidden_ND = self._forward(tokens_N, positions_N, decode, chunks)
        ends = torch.tensor([len(step.token_ids) for step in steps]).cumsum(0).tolist()
        end_of = dict(zip(order, ends, strict=True))
        rows = [row for i, step in enumerate(batch) for row in range(end_of[i] - step.wanted, end_of[i])]
        return hidden_ND[rows]

    def _plan_decode(self, steps: Sequence[SequenceStep]) -> _Decode | None:
        if not steps:
            return None
        slots = [step.slot for step in steps]
        lengths = [step.start + 1 for step in steps]
        lengths_B = torch.tensor(lengths)
        valid: dict[int, Tensor | None] | None = None
        if max(lengths) <= _TOGETHER_TOKENS or len(steps) == 1:
            self._kv.clean(slots, lengths)
            valid = {}
            for group in self.cache.groups:
                places = min(max(lengths), group.tokens(self.limits.max_context))
                all_seen = min(lengths) >= places
                valid[places] = None if all_seen else (torch.arange(places) < lengths_B[:, None])[:, None, None]
        return _Decode(slots, lengths, torch.tensor(slots), lengths_B - 1, valid)

    def _plan_chunks(self, steps: Sequence[SequenceStep], skip: int) -> list[_Chunk]:
        chunks = []
        row = skip
        for step in steps[skip:]:
            tokens = len(step.token_ids)
            masks = {group.window: _chunk_mask(step.start, tokens, group.window) for group in self.cache.groups}
            chunks.append(_Chunk(step.slot, step.start, step.start + tokens, slice(row, row + tokens), masks))
            row += tokens
        return chunks

    def _forward(self, tokens_N: Tensor, positions_N: Tensor, decode: _Decode | None, chunks: list[_Chunk]) -> Tensor:
        model = self._model
        config = model.config
        cos, sin = rotary(positions_N[None], config.head_dim, config.rope_theta, scaling=config.rope_scaling)
        x_1ND = model.embedded(tokens_N[None])
        for layer in model.plan:
            block = model.block(layer.index)
            normed_1ND = block.attention_norm(x_1ND)
            q_NHh = block.attention.project_q(normed_1ND, cos, sin)[0]
            k_NKh, v_NKh = None, None
            if layer.owns_kv:
                k_NKh, v_NKh = (part[0] for part in block.attention.project_kv(normed_1ND, cos, sin))
            o_NHh = torch.empty_like(q_NHh)
            if decode is not None:
                rows = slice(0, len(decode.slots))
                if k_NKh is not None and v_NKh is not None:
                    self._kv.write_tokens(layer.cache, decode.slots_B, decode.positions_B, k_NKh[rows], v_NKh[rows])
                o_NHh[rows] = self._attend_tokens(layer, q_NHh[rows], decode)
            for chunk in chunks:
                rows = chunk.rows
                if k_NKh is not None and v_NKh is not None:
                    k_KTh, v_KTh = k_NKh[rows].transpose(0, 1), v_NKh[rows].transpose(0, 1)
                    k_KSh, v_KSh = self._kv.extend(layer.cache, chunk.slot, chunk.start, k_KTh, v_KTh)
                else:
                    k_KSh, v_KSh = (part[0] for part in self._kv.written(layer.cache, chunk.slot, chunk.end))
                k_SKh, v_SKh = k_KSh.transpose(0, 1), v_KSh.transpose(0, 1)
                o_NHh[rows] = attend(q_NHh[None, rows], k_SKh[None], v_SKh[None], chunk.masks[layer.window])[0]
            x_1ND = feed_forward(block, block.add_attention(x_1ND, normed_1ND, o_NHh[None]))
        hidden_1ND: Tensor = model.norm(x_1ND)
        return hidden_1ND[0]

    def _attend_tokens(self, layer: LayerSpec, q_BHh: Tensor, decode: _Decode) -> Tensor:
        config = self._model.config
        # The query heads that read one kv head become its queries: PyTorch's own grouping of heads takes the slow
        # kernel for a single query, ten times slower in bfloat16.
        q_BKGh = q_BHh.view(len(q_BHh), config.num_key_value_heads, -1, config.head_dim)
        if decode.valid is not None:
            k_BKSh, v_BKSh = self._kv.padded(layer.cache, decode.slots, decode.slots_B, max(decode.lengths))
            o_BKGh = F.scaled_dot_product_attention(q_BKGh, k_BKSh, v_BKSh, attn_mask=decode.valid[k_BKSh.shape[2]])
        else:
            rows = [
                F.scaled_dot_product_attention(q_BKGh[i : i + 1], *self._kv.written(layer.cache, slot, length))
                for i, (slot, length) in enumerate(zip(decode.slots, decode.lengths, strict=True))
            ]
            o_BKGh = torch.cat(rows)
        return o_BKGh.flatten(1, 2)


def _chunk_mask(start: int, tokens: int, window: int | None) -> Mask:
    """Who of a chunk sees which of the keys that `KVCache.extend` returns."""
    if start == 0:
        return build_mask(tokens, window, None, torch.device("cpu"))
    before = start if window is None else min(start, window - 1)
    behind = torch.arange(before, before + tokens)[:, None] - torch.arange(before + tokens)
    mask = behind >= 0
    return mask if window is None else mask & (behind < window)
