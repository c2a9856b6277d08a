"""The runner: one step over many sequences, each with its keys and values in a slot.

It is as plain as a right one can be: sequences are computed one after another, and a cache is a tensor that grows. Make
it fast from here, and let the conformance kit say whether it is still right.

Legend: T new tokens, S keys, D model width, H heads, K kv heads, h head width, R wanted results, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fulmen_core.backend import Dtype
from fulmen_core.errors import CapabilityError
from fulmen_core.model.attention import attend
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerSpec
from fulmen_core.model.rope import rotary
from fulmen_core.refusals import WithoutAdapters, WithoutPages
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


@dataclass
class _Slot:
    """The keys and values of one sequence: for each cache those of its last positions, [S, K, h] each."""

    length: int = 0
    caches: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class AcmeRunner(WithoutPages, WithoutAdapters):
    """A `fulmen_core.runner.Runner` on PyTorch, without pages: a slot holds all of a sequence."""

    def __init__(self, model_dir: Path, limits: EngineLimits, dtype: Dtype) -> None:
        self._model = load_model(model_dir, getattr(torch, dtype)).requires_grad_(False)
        config = self._model.config
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size = config.vocab_size
        windows = any(group.window is not None for group in self.cache.groups)
        rewind = limits.draft_tokens if windows else self.limits.max_context
        # every sequence is computed alone, so its bits depend on nothing else in the step
        self.layout = CacheLayout(limits.slots, rewind=rewind, batch_invariant=True)
        self._slots = [_Slot() for _ in range(limits.slots)]

    @torch.inference_mode()
    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Compute a mixed step: float32 logits [R, V] after the wanted tokens, in the batch's order."""
        if any(step.adapter for step in batch):
            raise ValueError("no adapter is loaded: this backend serves none")
        rows = [self._model.logits(self._hidden(step)[-step.wanted :]) for step in batch]
        logits_RV: NDArray[np.float32] = torch.cat(rows).numpy()
        return logits_RV

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        """Refuse: `Capabilities.embed` is not declared."""
        raise CapabilityError("the acme backend gives no hidden states", remedy="use --backend cpu")

    def copy_slot(self, source: int, target: int, tokens: int) -> None:
        """Make `target` hold the `tokens` tokens that `source` holds. Tensors are shared: none is written twice."""
        held = self._slots[source]
        self._slots[target] = _Slot(held.length, dict(held.caches))
        self._cut(self._slots[target], tokens)

    def release(self, slot: int) -> None:
        """Forget the sequence in `slot`. Idempotent."""
        self._slots[slot] = _Slot()

    def close(self) -> None:
        """Give back all memory. Idempotent."""
        vars(self).pop("_model", None)
        self._slots = []

    def _hidden(self, step: SequenceStep) -> Tensor:
        """The final hidden states of a sequence's new tokens, [T, D]; its slot then holds them too."""
        model, config = self._model, self._model.config
        slot = self._slots[step.slot]
        self._cut(slot, step.start)
        end = step.start + len(step.token_ids)
        at_T = torch.arange(step.start, end)
        cos, sin = rotary(at_T[None], config.head_dim, config.rope_theta, scaling=config.rope_scaling)
        x_1TD = model.embedded(torch.tensor([step.token_ids]))
        for layer in model.plan:
            block = model.block(layer.index)
            normed_1TD = block.attention_norm(x_1TD)
            q_1THh = block.attention.project_q(normed_1TD, cos, sin)
            if layer.owns_kv:
                k_1TKh, v_1TKh = block.attention.project_kv(normed_1TD, cos, sin)
                self._append(slot, layer, k_1TKh[0], v_1TKh[0])
            k_SKh, v_SKh = slot.caches[layer.cache]
            behind_TS = at_T[:, None] - torch.arange(end - len(k_SKh), end)
            seen_TS = behind_TS >= 0
            if layer.window is not None:
                seen_TS &= behind_TS < layer.window
            x_1TD = block.add_attention(x_1TD, normed_1TD, attend(q_1THh, k_SKh[None], v_SKh[None], seen_TS))
            x_1TD = block.feed_forward(x_1TD)
        slot.length = end
        for layer in model.plan.cache_owners:
            if layer.window is not None:  # what no later token can see, even after the last drafts are taken back
                kept = layer.window + self.limits.draft_tokens
                slot.caches[layer.cache] = tuple(part[-kept:] for part in slot.caches[layer.cache])  # type: ignore[assignment]
        hidden_1TD: Tensor = model.norm(x_1TD)
        return hidden_1TD[0]

    def _append(self, slot: _Slot, layer: LayerSpec, k_TKh: Tensor, v_TKh: Tensor) -> None:
        if layer.cache in slot.caches:
            k_SKh, v_SKh = slot.caches[layer.cache]
            k_TKh, v_TKh = torch.cat((k_SKh, k_TKh)), torch.cat((v_SKh, v_TKh))
        slot.caches[layer.cache] = k_TKh, v_TKh

    def _cut(self, slot: _Slot, length: int) -> None:
        """Take back what lies at `length` and beyond; 0 begins a new sequence."""
        surplus = slot.length - length
        slot.length = length
        if length == 0:
            slot.caches = {}
        elif surplus > 0:
            slot.caches = {number: (k[:-surplus], v[:-surplus]) for number, (k, v) in slot.caches.items()}
